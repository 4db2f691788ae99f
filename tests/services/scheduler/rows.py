"""Comparisons in the database of a workshop."""

from sqlalchemy import select

from shared.comparisons.claim import claim_next
from shared.comparisons.models import Comparison, ComparisonEvent
from shared.comparisons.state import State
from shared.db import transaction
from shared.ids import new_id
from shared.jobs.models import FineTuningJob
from shared.tenants.models import Tenant
from tests.services.worker.workshop import BASE


class Comparisons:
    """Adds comparisons and tells of them."""

    def __init__(self, workshop):
        self.engine = workshop.engine
        self.job_id = workshop.add_job()
        with transaction(self.engine) as session:
            job = session.get_one(FineTuningJob, self.job_id)
            self.tenant_id, self.file_id = job.tenant_id, job.training_file_id

    def add(self, state=State.QUEUED, **values):
        row = {
            "id": new_id("cmp-"),
            "tenant_id": self.tenant_id,
            "base_model": BASE,
            "training_file_id": self.file_id,
            "document_file_ids": [],
            "arms": ["zero_shot"],
            "questions": 200,
            "seed": 1,
            "retriever": "hybrid",
            "state": state,
        } | values
        with transaction(self.engine) as session:
            session.add(Comparison(**row))
        return row["id"]

    def get(self, comparison_id):
        with transaction(self.engine) as session:
            return session.get_one(Comparison, comparison_id)

    def events(self, comparison_id):
        mine = ComparisonEvent.comparison_id == comparison_id
        query = select(ComparisonEvent).where(mine).order_by(ComparisonEvent.seq)
        with transaction(self.engine) as session:
            return session.scalars(query).all()

    def claim(self):
        with transaction(self.engine) as session:
            row = claim_next(session, "me", [BASE])
            return row and row.id

    def another_tenant(self):
        with transaction(self.engine) as session:
            session.add(tenant := Tenant(id=new_id("org-"), name=new_id("会社-")))
        return tenant.id
