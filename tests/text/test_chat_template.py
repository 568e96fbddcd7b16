"""Chat templates render as in transformers; hostile ones neither hang, nor fill the memory, nor break out."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from octavo.errors import InvalidRequestError, UnsupportedModelError
from octavo.text.chat_template import ChatTemplate, normalise_messages
from octavo.text.tokenizer import FakeTokenizer

SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}
CHAT = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "Größe? 你好 'quotes' \"double\"\n  indented  "},
    {"role": "assistant", "content": "<think>\nwell\n</think>\n\nAnswer"},
    {"role": "user", "content": "and {{ this }} {% is %} not a template"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What's it like in <town>?",
        "parameters": {"type": "object", "properties": {"town": {"type": "string", "enum": ["Zürich", "A&B"]}}},
    },
}
TEMPLATES = {
    "chatml with a default system message": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "alternating roles, trim, loop.index0, raise_exception": (
        "{{ bos_token }}{%- if messages[0].role == 'system' -%}{%- set first = messages[0].content | trim + '\n\n' -%}"
        "{%- set rest = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- set rest = messages -%}{%- endif -%}\n"
        "{%- for message in rest -%}\n"
        "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n"
        "        {{ raise_exception('Conversation roles must alternate') }}\n    {%- endif -%}\n"
        "    {{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' "
        "+ (first if loop.first else '') }}\n"
        "    {%- if message['content'] is string -%}{{ message['content'] | trim }}{%- elif message['content'] is iterable -%}"
        "{%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}{%- endif -%}"
        "{{ '<end_of_turn>\n' }}\n{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
    ),
    "namespace, reversed messages, string methods, tools as json": (
        "{%- if tools %}\n    {{- '# Tools\n' }}\n    {%- for tool in tools %}\n        {{- \"\\n\" }}\n"
        "        {{- tool | tojson }}\n    {%- endfor %}\n{%- endif %}\n"
        "{%- set ns = namespace(last=messages|length - 1, found=false) %}\n"
        "{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if not ns.found and message.role == 'user' and not(message.content.startswith('<tool>')) %}\n"
        "        {%- set ns.found = true %}\n        {%- set ns.last = index %}\n    {%- endif %}\n{%- endfor %}\n"
        "{%- for message in messages %}\n    {%- if '</think>' in message.content %}\n"
        "        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}\n"
        "        {{- message.role ~ ': ' ~ content ~ loop.index }}\n    {%- else %}\n"
        "        {{- message.role + ': ' + message.content }}\n    {%- endif %}\n    {{- '\\n' }}\n{%- endfor %}\n"
        "{{- ns.last }}{%- if enable_thinking is defined and enable_thinking is false %}no thoughts{%- endif %}"
    ),
    "macro, break, generation, filters": (
        "{% macro turn(role, text) -%}[{{ role | upper }}] {{ text | replace('\n', ' ') }}{%- endmacro %}"
        "{% for message in messages %}{% if message.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}{{ turn(message.role, message['content']) }}{% endgeneration %}\n"
        "{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}"
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}"
        "{{ tools | tojson(indent=2) if tools else 'none' }}{{ loop is defined }}"
        "{%- for key, value in {'a': 1, 'b': [1, 2.5, none, true]}.items() %} {{ key }}={{ value | tojson }}{% endfor %}"
        "{{ messages[0].get('name', 'nobody') | default('x') }} {{ '%05.1f' if false else 3 * 2 - 1 }} {{ 7 // 2 ** 1 % 3 }}"
    ),
    "loop variables": (
        "{% for message in messages %}{{ loop.length }}{{ loop.revindex }}{{ loop.last }}{{ loop.cycle('a', 'b') }}"
        "{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem.role if not loop.last }}{% else %}empty"
        "{% endfor %}{% for a, b in [(1, 2), (3, 4)] if a > 1 %}{{ a ~ b }}{% endfor %}{{ (1, 2)[0] }}{{ undefined_name }}"
        "{% set block %}  text {{ messages | length }}{% endset %}{{ block }}"
    ),
}


def render(source: str, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> str:
    template = ChatTemplate(source, special_tokens=SPECIALS, origin="m")
    return template.render(messages or [{"role": "user", "content": "x" * 1000}], **kwargs)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, [TOOL, TOOL]])
@pytest.mark.parametrize("messages", [CHAT, CHAT[1:2], CHAT[1:]])
def test_renders_as_transformers_does(name: str, tools: Any, messages: list[dict[str, Any]]) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    for generation_prompt in (True, False):
        expected, _ = utils.render_jinja_template(
            [messages],
            tools=tools,
            chat_template=TEMPLATES[name],
            add_generation_prompt=generation_prompt,
            enable_thinking=False,
            **SPECIALS,
        )
        ours = render(
            TEMPLATES[name],
            messages,
            tools=tools,
            add_generation_prompt=generation_prompt,
            variables={"enable_thinking": False},
        )
        assert ours == expected[0]


def test_what_a_template_refuses_is_the_clients_to_read() -> None:
    template = TEMPLATES["alternating roles, trim, loop.index0, raise_exception"]
    with pytest.raises(InvalidRequestError, match="'m' refuses these messages: Conversation roles must alternate") as e:
        render(template, [CHAT[1], CHAT[1]])
    assert e.value.param == "messages"
    with pytest.raises(InvalidRequestError, match="cannot render"):
        render("{{ messages[0].content.nothing.more }}")


def test_strftime_now() -> None:
    year = time.localtime().tm_year
    assert render("{{ strftime_now('%Y') }}") in (str(year), str(year + 1))


# Each ends in an error that names the limit, or in harmless text; none may take long or much memory.
LOOPS = "{% for i in range(99999) %}"
DOUBLING = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}BODY{% endfor %}{{ ns.x | length }}"
HOSTILE = [
    "{% for i in range(10**9) %}x{% endfor %}",
    f"{LOOPS}{LOOPS}{{% endfor %}}{{% endfor %}}",
    f"{{% set l = range(99999) %}}{LOOPS}{{% for j in l %}}{{% endfor %}}{{% endfor %}}",
    f"{LOOPS}{LOOPS}{'y' * 900}{{% endfor %}}{{% endfor %}}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [0] * 10**10 }}",
    "{{ 10**(10**10) }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'.encode() }}",
    "{{ (5).to_bytes(10**10) }}",
    "{{ 'a' | center(10**10) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%9999999999d' | format(1) }}",
    "{{ '{:9999999999d}'.format(1) }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ range(10) | list | slice(10**10) | list }}",
    "{{ range(10) | list | batch(10**10, 0) | list }}",
    "{{ 1.5 | round(10**10, 'ceil') }}",
    "{{ [[1], [2]] | sum(start=[]) }}",
    "{{ lipsum(n=10**6) }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for x in messages recursive %}{{ loop(messages) }}{{ loop(messages) }}{% endfor %}",
    *(
        DOUBLING.replace("BODY", body)
        for body in (
            "{% set ns.x = ns.x ~ ns.x %}",
            "{% set ns.x = ns.x + ns.x %}",
            "{% set ns.x = ns.x * 2 %}",
            "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}",
            "{% set ns.x = ns.x | replace('a', ns.x) %}",
            "{% set ns.x = ns.x.replace('a', ns.x) %}",
            "{% set ns.x = [ns.x, ns.x] | join %}",
            "{% set ns.x = ns.x.join([ns.x, ns.x]) %}",
            "{% set ns.x = '{0}{0}'.format(ns.x) %}",
            "{% set ns.x = [ns.x, ns.x] %}",
            "{% set ns.x = {'a': ns.x, 'b': ns.x} %}",
            "{% set ns.x = dict(a=ns.x, b=ns.x) %}",
            "{% set ns.x = (ns.x, ns.x) %}",
        )
    ),
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{{ ''.__class__.__mro__ }}",
]


@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_templates_are_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (
        ("MAX_STEPS", 50_000),
        ("MAX_CHARS", 1 << 20),
        ("MAX_VALUE", 1 << 19),
    ):  # sooner than in earnest
        monkeypatch.setattr(f"octavo.text.budget.{name}", limit)
    with pytest.raises((InvalidRequestError, UnsupportedModelError), match=r"'m'|m: chat template"):
        render(source)


@pytest.mark.parametrize(
    "source",
    ["{{ messages.__class__ }}", "{{ '' | attr('__class__') }}", "{{ raise_exception.__globals__ }}", "{{ config }}"],
)
def test_internals_are_undefined(source: str) -> None:
    assert render(source) == ""


def test_a_slow_template_is_stopped_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.text.budget.MAX_TIME_S", 0.05)
    with pytest.raises(InvalidRequestError, match="took longer"):
        render("{% set l = range(99999) | list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}")


@pytest.mark.parametrize("source", [HOSTILE[3], HOSTILE[24]])
def test_the_limits_in_earnest(source: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"more than|one value|took longer"):
        render(source)


def test_a_large_but_honest_chat_renders() -> None:
    messages = [{"role": role, "content": "word " * 2000} for _ in range(100) for role in ("user", "assistant")]
    text = render(TEMPLATES["chatml with a default system message"], messages)
    assert text.count("word ") == 200 * 2000


def test_one_template_on_many_threads() -> None:
    template = ChatTemplate(TEMPLATES["loop variables"], special_tokens=SPECIALS, origin="m")
    expected = [template.render(CHAT[:n]) for n in range(1, 5)]
    wrong: list[str] = []

    def work() -> None:
        for _ in range(50):
            for n in range(1, 5):
                if template.render(CHAT[:n]) != expected[n - 1]:
                    wrong.append("differs")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_templates_that_do_not_compile_are_named() -> None:
    with pytest.raises(UnsupportedModelError, match="'default', line 2"):
        render("\n{% for %}")
    with pytest.raises(UnsupportedModelError, match="limit"):
        render("x" * 2_000_000)
    with pytest.raises(UnsupportedModelError, match="empty"):
        ChatTemplate({}, special_tokens={}, origin="m")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": 5, "content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "assistant", "tool_calls": [5]}], "messages[0].tool_calls[0]"),
        ([{"role": "assistant", "tool_calls": 5}], "messages[0].tool_calls"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_malformed_messages_name_the_field(messages: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        FakeTokenizer().render_chat(messages)
    assert caught.value.param == param


def test_messages_as_templates_expect_them() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Bern"}'}}
    assert normalise_messages(
        [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "n"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
    ) == [
        {"role": "user", "content": "a\nb", "name": "n"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call | {"function": {"name": "weather", "arguments": {"town": "Bern"}}}],
        },
    ]
    assert call["function"]["arguments"] == '{"town": "Bern"}'  # the client's own objects stay as they were


def test_filters_that_are_ours_work_as_jinjas_do() -> None:
    assert render("{{ messages | join(', ', attribute='role') }}", CHAT[:2]) == "system, user"
    assert render("{{ ['a\nb\n\nc'] | first | indent(2) }}|{{ 'a\n\nb' | indent('> ', true, true) }}") == (
        "a\n  b\n\n  c|> a\n> \n> b"
    )
    assert (
        render("{{ 2.567 | round(1) }} {{ 2.5 | round }} {{ [1, 2.5] | sum }} {{ 7 | string + 'x' }}")
        == "2.6 2.0 3.5 7x"
    )
    assert render("{{ 'a-b-c'.replace('-', '+', 1) }} {{ '-'.join(['x', 'y']) }} {{ '{} {a}'.format(1, a=2) }}") == (
        "a+b-c x-y 1 2"
    )
    assert render("{{ 2 ** 10 }} {{ 7 % 4 }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ -3 * 2 }}") == "1024 3 abab [1, 2] -6"
    assert render("{{ {'b': 1, 'a': 'é<'} | tojson(indent=1) }}") == '{\n "b": 1,\n "a": "é<"\n}'


def test_variables_cannot_replace_what_the_server_sets() -> None:
    with pytest.raises(InvalidRequestError, match="'tools' is set by the server"):
        render("x", variables={"tools": []})
    with pytest.raises(InvalidRequestError, match="'eos_token' is set by the server"):
        render("x", variables={"eos_token": ""})
