"""SoftEther: captured answers in, golden output out; a fall after a crash counts nothing (CS-2)."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest
from captures import golden, goldens, said, text_of
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors import Source, softether
from aggregator.agent.collectors.softether import parse
from aggregator.agent.readings import Capture, Drop, Origin
from aggregator.agent.resets import from_saved, from_zero
from aggregator.agent.totals import RunningTotals
from aggregator.errors import BadInputError

DAY = dt.date(2026, 10, 5)
STAGES = (
    "00-start",
    "01-connected",
    "02-udp",
    "03-tcp",
    "03b-11s-later",
    "04-alice-gone",
    "05-alice-back",
    "06-restarted",
    "07-after-restart",
    "08-after-kill",
)
# Stages in which nobody moved anything while the captures were taken.
QUIET = ("00-start", "06-restarted", "07-after-restart", "08-after-kill")
SOURCE = Source(
    parse,
    from_saved,
    counters_return=True,
    names_accounts=True,
    settings=softether.Settings,
    connect=softether.connect,
)

USERS = (
    "User Name,Full Name,Group Name,Description,Auth Method,Num Logins,Last Login,"
    "Expiration Date,Transfer Bytes,Transfer Packets\n"
)


def stage(name: str, form: str) -> Capture:
    """Return one captured stage in one form."""
    return parse(text_of(f"softether/{name}.{form}"))


def totals(*captures: Capture) -> dict[str, int]:
    """Return bytes by account after captures of one day."""
    state = RunningTotals(SOURCE)
    for each in captures:
        state = state.after(each, DAY)
    return {record.user: record.bytes for record in state.records("us-nyc", "9f3c2b7a11d04e55")}


def names(capture: Capture) -> list[tuple[str, int]]:
    """Return names and bytes in order."""
    return sorted((reading.name, reading.bytes) for reading in capture.readings)


def row(name: str, count: str, **others: str) -> str:
    """Return a row of UserList as vpncmd 5 writes it."""
    note = others.get("note", "")
    return (
        f'{name},{note},-,,Password Authentication,1,2026-11-22 05:59,No Expiration,{count},"1"\n'
    )


def user(name: object = "alice", **fields: object) -> dict[str, object]:
    """Return a row of EnumUser."""
    counters = {
        "Recv.Broadcast": 1,
        "Recv.Unicast": 20,
        "Send.Broadcast": 300,
        "Send.Unicast": 4000,
    }
    numbers = {f"Ex.{key}Bytes_u64": count for key, count in counters.items()}
    return {"Name_str": name, "IsTrafficFilled_bool": True, **numbers, **fields}


def answer(*rows: object, hub: object = "vt", key: str = "UserList") -> str:
    """Return an answer in its JSON-RPC envelope."""
    result = {key: list(rows), "HubName_str": hub}
    return json.dumps({"jsonrpc": "2.0", "id": "1", "result": result})


def session(name: str, **fields: object) -> dict[str, object]:
    """Return a row of EnumSession."""
    return {
        "Name_str": name,
        "Username_str": "alice",
        "PacketSize_u64": 10,
        "CreatedTime_dt": "2026-11-22T05:59:36.606Z",
        "ClientIP_ip": "203.0.113.9",
        **fields,
    }


# -- captures of a real daemon -----------------------------------------------------------------


@pytest.mark.parametrize("name", goldens("softether"))
def test_captures_of_a_real_daemon(name: str) -> None:
    assert said(parse(text_of(name))) == golden(name)


@pytest.mark.parametrize("name", QUIET)
def test_the_forms_of_one_stage_say_the_same(name: str) -> None:
    of_api = names(stage(name, "api-EnumUser"))
    assert names(stage(name, "UserList.csv")) == of_api
    each = [*names(stage(name, "UserGet-alice.csv")), *names(stage(name, "UserGet-bob.csv"))]
    assert each == of_api


def test_rows_of_the_api_as_json_lines_say_the_same() -> None:
    assert names(parse(text_of("softether/api-min.jsonl"))) == names(
        stage("08-after-kill", "api-EnumUser")
    )


def test_both_directions_and_broadcasts_are_added() -> None:
    """config-traffic of the captures: what the server itself saved for alice."""
    saved = 1396 + 21_527_528 + 1396 + 54_838_252
    assert names(stage("08-after-kill", "api-EnumUser"))[0] == ("alice", saved)


def test_pages_of_several_users_in_one_file() -> None:
    text = "".join(text_of(f"softether/07-after-restart.UserGet-{u}.csv") for u in ("alice", "bob"))
    assert names(parse(text)) == names(stage("07-after-restart", "UserList.csv"))


# -- totals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["api-EnumUser", "UserList.csv"])
def test_a_restart_and_a_kill_count_nothing_twice(form: str) -> None:
    """SoftEther after SIGKILL falls back partly: take 0."""
    captures = [stage(name, form) for name in STAGES]
    before_kill = dict(names(captures[-2]))
    assert totals(*captures) == before_kill
    assert dict(names(captures[-1]))["alice"] < before_kill["alice"]


def test_the_totals_are_what_the_sessions_moved() -> None:
    """The last numbers of each session, but for what came after them in its last seconds."""
    sessions = [
        stage("05-alice-back", f"SessionGet-SID-ALICE-{number}.csv").readings[0].bytes
        for number in (2, 4)
    ]
    grown = totals(*(stage(name, "api-EnumUser") for name in STAGES[:8]))
    assert sum(sessions) <= grown["alice"] <= sum(sessions) + 1000


def test_udp_is_exact() -> None:
    """1000 datagrams of 1000 bytes: 1000 * 1042; the rest are 11 frames of the neighbourhood."""
    before, after = (
        stage(name, "SessionGet-SID-ALICE-2.csv").readings[0].bytes
        for name in ("01-connected", "02-udp")
    )
    assert 1_042_000 <= after - before <= 1_042_000 + 1000


def test_after_a_kill_counting_goes_on_from_what_was_saved() -> None:
    kill = [stage(name, "api-EnumUser") for name in STAGES[-2:]]
    text = text_of("softether/08-after-kill.api-EnumUser").replace("54838252", "54838352")
    assert totals(*kill, parse(text)) == {"alice": 100}


@pytest.mark.parametrize(
    ("before", "now", "counted"),
    [((), (5,), 5), ((5,), (5,), 0), ((5,), (7,), 2), ((5,), (4,), 0), ((5,), (), 0), ((), (), 0)],
)
def test_from_saved(before: tuple[int, ...], now: tuple[int, ...], counted: int) -> None:
    assert from_saved(before, now) == counted


@given(st.lists(st.integers(0, 100)), st.lists(st.integers(0, 100)))
def test_from_saved_counts_never_more_than_from_zero(before: list[int], now: list[int]) -> None:
    assert 0 <= from_saved(before[:1], now[:1]) <= from_zero(before[:1], now[:1])


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=20))
def test_crashes_never_make_more_than_what_was_moved(steps: list[tuple[int, bool]]) -> None:
    """With a reading before every crash nothing at all is lost before it either."""
    counter = saved = moved = 0
    captures = [parse(answer(user(**{"Ex.Recv.UnicastBytes_u64": 0})))]
    for count, crashed in steps:
        counter, moved = counter + count, moved + count
        captures.append(parse(answer(user(**{"Ex.Recv.UnicastBytes_u64": counter}))))
        if crashed:
            counter = saved
            captures.append(parse(answer(user(**{"Ex.Recv.UnicastBytes_u64": counter}))))
        else:
            saved = counter
    assert totals(*captures).get("alice", 0) == moved


def test_users_and_sessions_and_hubs_are_not_mixed_up() -> None:
    users, sessions = (
        stage("05-alice-back", "api-EnumUser"),
        stage("05-alice-back", "SessionList.csv"),
    )
    with pytest.raises(BadInputError, match="another form"):
        totals(users, sessions)
    first, second = (parse(answer(user(), hub=hub)).readings[0].counter for hub in ("a", "b"))
    assert first != second


# -- connections -------------------------------------------------------------------------------


def test_cs_1_a_session_is_a_connection_with_an_origin_in_place_of_its_address() -> None:
    asked: list[str] = []

    def locate(address: str) -> Origin:
        asked.append(address)
        return Origin("DE", len(asked))

    for form in ("api-EnumSession", "SessionList.csv"):
        asked.clear()
        capture = parse(text_of(f"softether/05-alice-back.{form}"), locate)
        assert sorted(asked) == ["10.77.1.2", "10.77.1.2", "fd77:2::2"]
        assert sorted(str(c.account) for c in capture.connections) == ["alice", "alice", "bob"]
        assert all(c.established and c.origin.country == "DE" for c in capture.connections)
        assert not re.search(r"10\.77|fd77|2026|SID-", repr(capture))


def test_a_name_of_a_session_used_again_after_a_restart_is_another_connection() -> None:
    before, after = (
        {c.key for c in stage(name, "api-EnumSession").connections if c.name == "alice"}
        for name in ("01-connected", "07-after-restart")
    )
    assert not before & after
    assert before < {c.key for c in stage("05-alice-back", "api-EnumSession").connections}


def test_bridges_cascades_and_nat_are_nobodys_sessions() -> None:
    assert stage("00-start", "SessionList.csv").connections == ()
    rows = [
        session(f"SID-X-{at}", **{flag: True})
        for at, flag in enumerate(
            ("BridgeMode_bool", "LinkMode_bool", "SecureNATMode_bool", "Layer3Mode_bool")
        )
    ]
    capture = parse(answer(*rows, session("SID-ALICE-1"), key="SessionList"))
    assert len(capture.connections) == len(capture.readings) == 1
    assert capture.dropped == {}


def test_the_name_of_a_host_is_not_located() -> None:
    text = text_of("softether/05-alice-back.SessionList.csv").replace("10.77.1.2", "a.example.org")

    def locate(address: str) -> Origin:
        assert address == "fd77:2::2"
        return Origin("DE", 1)

    capture = parse(text, locate)
    assert [c.origin for c in capture.connections] == [Origin(), Origin("DE", 1), Origin()]


# -- other languages and versions --------------------------------------------------------------

LANGUAGES = {
    "ja": ("項目", "値", "パケット", "バイト"),
    "cn": ("项目", "价值", "数据包", "字节"),
    "tw": ("項目", "價值", "封包", "位元組"),
    "ko": ("항목", "값", "패킷", "바이트"),
    "ru": ("Item", "Value", "пакетов", "байт"),
    "pt_br": ("Item", "Valor", "pacotes", "bytes"),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["UserGet-alice.csv", "SessionGet-SID-ALICE-4.csv"])
def test_pages_in_other_languages_are_read(language: str, name: str) -> None:
    item, value, packets, size = LANGUAGES[language]
    text = text_of(f"softether/05-alice-back.{name}")
    expected = golden(f"softether/05-alice-back.{name}")
    lines = [re.sub(r"^[^,]*(?=,)", f"{item} x", line) for line in text.splitlines()[1:]]
    lines = [line.replace(f"{item} x,---", "---,---") for line in lines]
    local = f"{item},{value}\n" + "\n".join(lines) + "\n"
    local = local.replace(" packets", f" {packets}").replace(" bytes", f" {size}")
    assert said(parse(local)) == expected


def test_a_list_under_a_heading_in_another_language_is_read() -> None:
    heading = (
        "ユーザー名,本名,所属グループ,説明,認証方法,ログイン回数,最終ログイン日時,有効期限,"
        "転送バイト数,転送パケット数\n"
    )
    text = text_of("softether/07-after-restart.UserList.csv")
    local = heading + text.split("\n", 1)[1]
    assert said(parse(local)) == golden("softether/07-after-restart.UserList.csv")


def test_older_lists_have_fewer_columns_and_later_ones_may_have_more() -> None:
    text = USERS + row("alice", '"1,234,567"')
    fewer = re.sub(r",(?:Expiration Date|No Expiration)", "", text)
    more = re.sub(r",(Transfer Bytes|\"1,2)", r",x,\1", text)
    assert names(parse(text)) == names(parse(fewer)) == names(parse(more)) == [("alice", 1_234_567)]


def test_a_policy_after_a_page_is_not_read() -> None:
    text = text_of("softether/07-after-restart.UserGet-alice.csv")
    policy = (
        '\nThis user has a policy.\nItem,Description,Value\nMonitor,x,"9,999 bytes"\na,7 bytes\n'
    )
    assert said(parse(text + policy)) == golden("softether/07-after-restart.UserGet-alice.csv")


def test_a_single_user_of_the_api_has_no_prefix() -> None:
    single = {key.removeprefix("Ex."): value for key, value in user().items()}
    text = json.dumps({"result": {"HubName_str": "vt", **single}})
    assert names(parse(text)) == [("alice", 4321)]
    assert parse(text).readings == parse(answer(user())).readings


# -- odd rows ----------------------------------------------------------------------------------


def test_quoted_fields_with_commas_quotes_and_line_ends_do_not_move_the_numbers() -> None:
    for note in ('"a, b"', '"say ""hi"""', '"two\nlines"', "---", '"1,234 bytes"'):
        assert names(parse(USERS + row("alice", '"1,000"', note=note))) == [("alice", 1000)]
    text = text_of("softether/07-after-restart.UserGet-alice.csv")
    for note in ("---", '"9,999 bytes"', '"two\nlines"'):
        found = parse(text.replace("Description,\n", f"Description,{note}\n"))
        assert said(found) == golden("softether/07-after-restart.UserGet-alice.csv")


def test_the_user_in_whose_name_everybody_is_counted_is_nobody() -> None:
    capture = parse(answer(user("*"), user("bob")))
    assert names(capture) == [("bob", 4321)]
    assert capture.dropped == {Drop.UNMAPPED: 1}


def test_traffic_that_a_cluster_did_not_fill_in_is_no_zero() -> None:
    capture = parse(answer(user(IsTrafficFilled_bool=False), user("bob")))
    assert names(capture) == [("bob", 4321)]
    assert capture.dropped == {Drop.UNREADABLE: 1}
    capture = parse(USERS + row("alice", "(None)") + row("bob", "5"))
    assert (names(capture), capture.dropped) == ([("bob", 5)], {Drop.UNREADABLE: 1})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("203.0.113.77", Drop.ADDRESS_LIKE),
        ("bob 13:37", Drop.TIMESTAMP_LIKE),
        ("x" * 129, Drop.BAD_FORMAT),
        ("", Drop.BAD_FORMAT),
        (None, Drop.UNREADABLE),
    ],
)
def test_cs_6_an_account_no_record_may_carry_is_dropped_and_counted(
    name: object, reason: Drop
) -> None:
    capture = parse(answer(user(name), user("alice")))
    assert names(capture) == [("alice", 4321)]
    assert capture.dropped == {reason: 1}


@pytest.mark.parametrize("count", [-1, 1.0, 1e300, True, None, [], "x", "1,000", 10**17, 2**53])
def test_numbers_of_the_api_are_whole_and_plausible(count: object) -> None:
    capture = parse(answer(user(**{"Ex.Send.UnicastBytes_u64": count}), user("bob")))
    assert names(capture) == [("bob", 4321)]
    assert capture.dropped == {Drop.UNREADABLE: 1}


@pytest.mark.parametrize(
    "count", ['"1,00"', "1.5", '"1,000 bytes"', '"1,0000"', '",1"', "-1", "\u0661", "1" * 17, ""]
)
def test_numbers_of_a_list_are_whole_and_plausible(count: str) -> None:
    capture = parse(USERS + row("alice", count) + row("bob", '"1,000"'))
    assert (names(capture), capture.dropped) == ([("bob", 1000)], {Drop.UNREADABLE: 1})


def test_a_user_that_is_there_twice_counts_once_with_the_larger_number() -> None:
    capture = parse(USERS + row("alice", "5") + row("alice", "9") + row("alice", "7"))
    assert (names(capture), capture.dropped) == ([("alice", 9)], {Drop.REPEATED: 2})


def test_rows_that_are_damaged_are_counted_and_the_rest_is_used() -> None:
    """FreeRADIUS PR 5835: one bad record must not stop the queue."""
    text = USERS + "carol,,-\n" + row("alice", "5") + "a,b\n"
    capture = parse(text)
    assert (names(capture), capture.dropped) == ([("alice", 5)], {Drop.UNREADABLE: 2})
    capture = parse(answer(user(), 7, "x", {"a": 1}, None))
    assert (names(capture), capture.dropped) == ([("alice", 4321)], {Drop.UNREADABLE: 4})


# -- could not read ----------------------------------------------------------------------------


def test_nothing_to_read_is_not_could_not_read() -> None:
    for text in (answer(), USERS, '{"UserList": []}', answer(key="SessionList")):
        capture = parse(text)
        assert (capture.readings, capture.dropped, capture.connections) == ((), {}, ())


def test_an_empty_list_can_be_compared_with_a_full_one() -> None:
    assert totals(parse(USERS), parse(USERS + row("alice", "5"))) == {"alice": 5}
    assert totals(parse(answer()), parse(answer(user()))) == {"alice": 4321}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "secret\n",
        '{"secret": 1}',
        '{"result": {"secret": []}}',
        '{"error": {"code": 52, "message": "secret"}}',
        '{"error": "secret"}',
        '{"result": ',
        '{"Name_str": "secret", "Name_str": "x"}',
        "[" * 100_000,
        "Error occurred. (Error code: 52)\nsecret\n",
        (USERS + row("secret", "5")).removesuffix("\n"),
        USERS + row("secret", '"5').replace('"1"', "1"),
        row("secret", "5") + row("bob", "6"),
        "Item,Value\nUser Name,secret\nFull Name,\n",
        "Item,Value\nUser Name,secret\n---,---\n",
        "a,b\n" * 10,
        '"' + "x" * 200_000 + '"\n',
    ],
    ids=range(18),
)
def test_could_not_read_is_an_error_without_input_text(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_error_of_the_server_is_told_by_its_number() -> None:
    with pytest.raises(BadInputError, match=r"code 52$"):
        parse('{"error": {"code": 52, "message": "secret"}}')


FORMS = ("api-EnumUser", "UserList.csv", "UserGet-alice.csv", "api-EnumSession", "SessionList.csv")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_cut_off_is_an_error_or_a_part_and_never_another_number(form: str) -> None:
    text = text_of(f"softether/05-alice-back.{form}")
    whole = set(parse(text).readings)
    errors = 0
    for end in range(len(text)):
        try:
            part = parse(text[:end])
        except BadInputError:
            errors += 1
            continue
        assert set(part.readings) <= whole
    assert errors > len(text) * 0.9


SEED = {form: text_of(f"softether/05-alice-back.{form}") for form in FORMS}
WORDS = ["'", '"', "{", "}", "[", "]", ",", "\n", " ", "\x00", "\udcff", ":", "9" * 30, "Qsecret"]


def survives(text: str) -> None:
    """Say that `text` is read or refused, and shown nowhere."""
    try:
        shown = repr(parse(text))
    except BadInputError as error:
        shown = str(error)
        assert "\n" not in shown
    assert not re.search(r"secret|10\.77|fd77|alice|2026", shown)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    survives(text)


@given(st.lists(st.lists(st.text(max_size=5), max_size=12), max_size=5))
def test_any_table_is_read_or_refused(table: list[list[str]]) -> None:
    survives("".join(",".join(cells) + "\n" for cells in table))


@given(
    st.sampled_from(FORMS),
    st.lists(
        st.tuples(st.integers(0, 2500), st.integers(0, 40), st.sampled_from(WORDS)), max_size=6
    ),
)
def test_any_damage_to_a_capture_is_read_or_refused(
    form: str, damages: list[tuple[int, int, str]]
) -> None:
    text = SEED[form]
    for at, width, word in damages:
        text = text[:at] + word + text[at + width :]
    survives(text)
