"""KV bookkeeping: sharing, verification, salting, eviction, and the arithmetic of fit."""

from __future__ import annotations

import random

import pytest

from octavo.errors import ContextLengthError
from octavo.kvcache.cache import KVCache
from octavo.kvcache.fit import check_fits
from octavo.kvcache.prefix import PrefixIndex
from octavo.types import EngineInfo, Request
from support.scheduling import make_request


def start(kv: KVCache, request: Request) -> int:
    """Give it its table, as if everything but the last token were computed; returns the cached tokens."""
    matched = kv.match(request)
    assert kv.missing_blocks(len(request.token_ids), matched) <= 0
    kv.start(request, len(request.token_ids), matched)
    request.num_computed_tokens = len(request.token_ids)
    kv.commit(request)
    kv.check()
    return len(matched) * kv.block_size


def test_a_shared_prefix_is_shared_without_copies() -> None:
    kv = KVCache(16, 4)
    first, second = make_request("a", list(range(10))), make_request("b", [*range(8), 77, 78])
    assert start(kv, first) == 0
    assert start(kv, second) == 8
    assert kv.block_table("a")[:2] == kv.block_table("b")[:2]
    assert kv.block_table("a")[2] != kv.block_table("b")[2]
    assert kv.num_used_blocks == 4
    kv.release("a")
    kv.check()
    assert kv.num_used_blocks == 3, "the shared blocks still belong to b"


def test_the_last_token_is_always_computed() -> None:
    kv = KVCache(16, 4)
    start(kv, make_request("a", list(range(8))))
    assert start(kv, make_request("b", list(range(8)))) == 4


def test_a_freed_prefix_still_serves_and_comes_back_to_life() -> None:
    kv = KVCache(8, 4)
    start(kv, make_request("a", list(range(12))))
    kv.release("a")
    assert kv.check() == {"total": 8, "held": 0, "plain": 5, "cached": 3}
    assert start(kv, make_request("b", list(range(12)))) == 8
    assert kv.check()["cached"] == 0 or kv.check()["held"] == 3


def test_tenants_never_share() -> None:
    kv = KVCache(16, 4)
    start(kv, make_request("a", list(range(9)), tenant="one"))
    assert kv.match(make_request("b", list(range(9)), tenant="two")) == []
    assert len(kv.match(make_request("c", list(range(9)), tenant="one"))) == 2


def test_a_hash_collision_costs_a_miss_and_nothing_more() -> None:
    index = PrefixIndex()
    index.add(b"digest", b"parent", b"tokens", 3)
    assert index.find(b"digest", b"parent", b"tokens") == 3
    assert index.find(b"digest", b"parent", b"other!") is None
    assert index.find(b"digest", b"stranger", b"tokens") is None
    assert not index.add(b"digest", b"parent", b"other!", 4)


def test_eviction_takes_the_least_recently_used_and_tails_first() -> None:
    kv = KVCache(6, 4)
    start(kv, make_request("old", [1] * 9))
    start(kv, make_request("new", [2] * 9))
    kv.release("old")
    kv.release("new")
    # Two plain blocks (the unfull tails), then the old prefix's tail, then its head.
    start(kv, make_request("c", [3] * 11))
    assert len(kv.match(make_request("probe", [1] * 9))) == 1
    assert len(kv.match(make_request("probe2", [2] * 9))) == 2
    kv.release("probe")
    kv.release("probe2")
    kv.check()


def test_matched_free_blocks_do_not_count_twice() -> None:
    kv = KVCache(4, 4)
    start(kv, make_request("a", list(range(16))))
    kv.release("a")
    longer = make_request("b", [*range(16), 16])
    matched = kv.match(longer)
    assert len(matched) == 4
    assert kv.missing_blocks(17, matched) == 1, "all four blocks are the prefix itself; the fifth does not exist"
    assert kv.missing_blocks(17, matched) == 1


def test_duplicates_computed_side_by_side_are_kept_apart() -> None:
    kv = KVCache(16, 4)
    a, b = make_request("a", list(range(9))), make_request("b", list(range(9)))
    for request in (a, b):  # both start before either has computed anything
        kv.start(request, 9, kv.match(request))
    for request in (a, b):
        request.num_computed_tokens = 9
        kv.commit(request)
    kv.check()
    kv.release("a")
    kv.release("b")
    assert kv.check()["cached"] == 2


def test_no_prefix_cache_means_none() -> None:
    kv = KVCache(16, 4, prefix_cache=False)
    start(kv, make_request("a", list(range(9))))
    kv.release("a")
    assert kv.match(make_request("b", list(range(9)))) == []
    assert kv.check()["cached"] == 0


def test_extend_is_all_or_nothing() -> None:
    kv = KVCache(3, 4)
    start(kv, make_request("a", [1] * 5))
    assert not kv.extend("a", 17)
    assert len(kv.block_table("a")) == 2
    assert kv.extend("a", 12)
    assert kv.num_free_blocks == 0


def test_drop_cached_forgets_what_nobody_holds() -> None:
    kv = KVCache(8, 4)
    start(kv, make_request("a", list(range(9))))
    start(kv, make_request("b", [*range(4), 9, 9, 9, 9, 9]))
    kv.release("b")
    assert kv.drop_cached() == 1, "b's own full block; the shared one is a's"
    kv.check()
    assert len(kv.match(make_request("c", list(range(9))))) == 2


def test_random_traffic_keeps_the_books() -> None:
    rng = random.Random(7)
    kv = KVCache(24, 4)
    live: dict[str, Request] = {}
    for i in range(600):
        if live and (rng.random() < 0.45 or kv.num_free_blocks < 6):
            kv.release(live.pop(rng.choice(list(live))).request_id)
        else:
            prompt = [rng.randrange(2) for _ in range(4)] * rng.randrange(1, 4) + [rng.randrange(3)]
            request = make_request(f"r{i}", prompt, tenant=rng.choice("xy"))
            if kv.missing_blocks(len(prompt), kv.match(request)) <= 0:
                start(kv, request)
                live[request.request_id] = request
            else:
                kv.release(request.request_id)
        kv.check()


INFO = EngineInfo(model="m", vocab_size=10, max_model_len=100, block_size=16, num_blocks=5)


@pytest.mark.parametrize(("prompt", "output"), [(79, 1), (1, 79), (80, 0)])
def test_what_fits_fits(prompt: int, output: int) -> None:
    check_fits(prompt, output, INFO)


def test_beyond_the_blocks_the_message_does_the_sum() -> None:
    with pytest.raises(
        ContextLengthError, match=r"60 prompt tokens \+ 21 output tokens = 81, .* ceil\(81 / 16\) = 6 KV blocks.*has 5"
    ):
        check_fits(60, 21, INFO)


def test_beyond_the_context_the_message_names_it() -> None:
    with pytest.raises(ContextLengthError, match="context of m is 100 tokens") as caught:
        check_fits(101, 1, INFO)
    assert caught.value.param == "prompt"
    assert caught.value.status == 400
