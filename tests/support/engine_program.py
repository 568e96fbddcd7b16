"""An engine process that misbehaves on request, and the fake engine inside it.

Run like ``octavo.engine.process``. The model's name chooses how it starts; a prompt's first token chooses what the step
that computes it does. Everything else is the real engine over the fake executor.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from octavo.config import EngineConfig
from octavo.engine.build import BuiltEngine
from octavo.engine.core import Engine
from octavo.engine.messages import Start
from octavo.engine.process import run_process
from octavo.engine.resolve import Resolution
from octavo.engine.submission import RequestDefaults
from octavo.errors import UnsupportedModelError
from octavo.executor.fake import FakeExecutor
from octavo.kvcache.cache import KVCache
from octavo.scheduler.policies import make_policy
from octavo.scheduler.scheduler import Scheduler
from octavo.types import EngineInfo, Plan, Step

RAISE, HANG, DIE, GARBAGE = 101, 102, 103, 104  # first prompt tokens
VOCAB_SIZE = 512


class UnreliableExecutor(FakeExecutor):
    """Does what the first token of a prompt says, in the step that starts it."""

    def launch(self, plan: Plan) -> Step:
        for planned in plan.requests:
            if planned.new is not None and planned.start == 0:
                self._obey(planned.new.token_ids[0])
        return super().launch(plan)

    def _obey(self, token_id: int) -> None:
        if token_id == RAISE:
            raise RuntimeError("the step was told to fail")
        if token_id == HANG:
            time.sleep(600)
        if token_id == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if token_id == GARBAGE:
            os.write(int(sys.argv[1]), b"\xff" * 64)


def make_engine(config: EngineConfig, eos_token_ids: frozenset[int] = frozenset()) -> Engine:
    num_blocks = config.num_blocks or 4096
    kv = KVCache(num_blocks, config.block_size, prefix_cache=config.prefix_cache)
    scheduler = Scheduler(
        make_policy(config.policy),
        kv,
        max_num_running=config.max_num_running,
        max_step_tokens=config.max_step_tokens or 2048,
    )
    executor = UnreliableExecutor(VOCAB_SIZE, config.fake_step_ms / 1000, config.seed, config.block_size)
    info = EngineInfo(
        model="stand-in",
        vocab_size=VOCAB_SIZE,
        max_model_len=4096,
        block_size=config.block_size,
        num_blocks=num_blocks,
    )
    return Engine(scheduler, executor, info, RequestDefaults(eos_token_ids, config.seed))


def build(start: Start) -> BuiltEngine:
    match start.model.name:
        case "unsupported":
            raise UnsupportedModelError("architecture 'abacus' is unknown; known: llama", param="model")
        case "buggy":
            raise KeyError("a bug while loading")
        case "slow":
            time.sleep(600)
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "starts-once":
            mark = Path(str(start.model.path))
            if mark.exists():
                raise UnsupportedModelError("it started once, not again")
            mark.touch()
    engine = make_engine(start.config, frozenset(start.eos_token_ids))
    return BuiltEngine(engine, Resolution(start.config, {"num_blocks": "because the test says so"}))


if __name__ == "__main__":
    os._exit(run_process(sys.argv[1:], build))
