"""The embedded broker."""

from shared.task_queue import make_celery, ring, with_short_timeouts


def test_celery_rings_over_the_unix_socket(broker):
    app = make_celery(broker.url)
    assert ring(app)
    with app.connection_for_read() as connection:
        queue = connection.default_channel.queue_declare("default", passive=True)
    assert queue.message_count == 1
    app.close()


def test_a_dead_broker_fails_a_ring_without_raising(broker):
    broker.process.kill()
    broker.process.wait()
    app = with_short_timeouts(make_celery(broker.url))
    assert not ring(app)
    app.close()
