"""Request state of an executor (tokens, block table, parameters), kept up to date by plans; the rows of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from octavo.types import NewRequest, Plan, Sample, SamplingParams, StepResult


@dataclass(slots=True)
class RequestState:
    """A request as its executor sees it. ``token_ids``: prompt and all that was sampled; ``block_ids``: its block table."""

    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int] = frozenset()
    block_ids: list[int] = field(default_factory=list)

    @property
    def num_output_tokens(self) -> int:
        """Tokens after the prompt."""
        return len(self.token_ids) - self.num_prompt_tokens


class Row(NamedTuple):
    """One request's share of a step: ``num_tokens`` of ``request.token_ids`` from ``start`` on."""

    request: RequestState
    start: int
    num_tokens: int
    samples: bool
    num_draft_tokens: int = 0  # so many drafted tokens may follow


class RequestStates:
    """All requests that plans have named and not let go since."""

    def __init__(self) -> None:
        self._states: dict[str, RequestState] = {}

    def __len__(self) -> int:
        return len(self._states)

    def rows(self, plan: Plan) -> list[Row]:
        """Take in what the plan says. Raises ``ValueError`` for a request that was never introduced."""
        states = self._states
        for request_id in plan.forgotten:
            states.pop(request_id, None)
        rows = []
        for request_id, start, num_tokens, samples, new_block_ids, num_draft_tokens, new in plan.requests:
            if new is not None:
                states[request_id] = introduced(request_id, new)
            state = states.get(request_id)
            if state is None:
                raise ValueError(f"step {plan.step} plans {request_id}, which no plan has introduced")
            if new_block_ids:
                state.block_ids += new_block_ids
            rows.append(Row(state, start, num_tokens, samples, num_draft_tokens))
        return rows

    def sampled(self, samples: Mapping[str, Sample]) -> None:
        """The next step goes on behind these tokens."""
        for request_id, sample in samples.items():
            self._states[request_id].token_ids += sample.token_ids


def introduced(request_id: str, new: NewRequest) -> RequestState:
    """A request that has no blocks yet."""
    return RequestState(
        request_id, list(new.token_ids), new.num_prompt_tokens, new.params, new.max_tokens, new.stop_ids
    )


class FinishedStep(NamedTuple):
    """``Step`` of an executor that has computed it when ``launch`` returns."""

    outcome: StepResult

    def result(self) -> StepResult:
        return self.outcome
