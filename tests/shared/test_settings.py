"""What every settings class promises."""

import pytest
from pydantic import ValidationError

from shared.settings import BrokerSettings, InferenceClientSettings


class Both(BrokerSettings, InferenceClientSettings):
    """A secret, and something that is missing."""


def test_an_error_names_the_setting_and_shows_no_secret(monkeypatch):
    monkeypatch.setenv("TAILOR_INFERENCE_SECRET", "opensesame")
    monkeypatch.delenv("TAILOR_BROKER_URL", raising=False)
    with pytest.raises(ValidationError) as caught:
        Both()
    assert "broker_url" in str(caught.value)
    assert "sesame" not in str(caught.value)
