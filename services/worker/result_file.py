"""The file that comes of a job: every step's figures, as OpenAI names them."""

import csv
import hashlib
import io

from services.worker.spec import DoneMessage
from shared.files.models import StoredFile
from shared.ids import new_id
from shared.jobs.models import FineTuningJob
from shared.storage import LocalStore, publish_folder

FILENAME = "step_metrics.csv"
COLUMNS = (
    "step",
    "train_loss",
    "train_accuracy",
    "valid_loss",
    "valid_mean_token_accuracy",
    "test_loss",
    "test_mean_token_accuracy",
)


def write_result_file(store: LocalStore, job: FineTuningJob, done: DoneMessage) -> StoredFile:
    """Write the steps' figures as CSV under a new file id; return the row to be.

    Those of the test rows stand at the best step, the only one at which they were looked at.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for step in done.history:
        test = done.reported if step.step == done.best_step else None
        values = (
            step.train_loss,
            step.train_accuracy,
            step.valid_loss,
            step.valid_accuracy,
            test and test.test_loss,
            test and test.test_mean_token_accuracy,
        )
        table.writerow([step.step, *("" if value is None else f"{value:.6g}" for value in values)])
    raw = text.getvalue().encode()
    file_id = new_id("file-")
    with publish_folder(store.upload(file_id), {"file_id": file_id}) as folder:
        (folder / "raw").write_bytes(raw)
    return StoredFile(
        id=file_id,
        tenant_id=job.tenant_id,
        filename=FILENAME,
        purpose="fine-tune-results",
        bytes=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        status="processed",
        report={},
    )
