"""strongSwan: captured SAs in, golden output out; every form says the same (CS-2, CS-6)."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import pytest
from captures import DATA, golden, goldens, said, text_of
from hypothesis import given
from hypothesis import strategies as st

from aggregator.agent.collectors import Source, strongswan
from aggregator.agent.collectors.strongswan import parse
from aggregator.agent.readings import Capture, Drop, Origin
from aggregator.agent.resets import from_zero
from aggregator.agent.totals import RunningTotals
from aggregator.errors import BadInputError

DAY = dt.date(2026, 10, 5)
FORMS = ("list-sas.txt", "list-sas.raw", "vici", "vici-min.jsonl")
STAGES = (
    "00-connected",
    "01-ping",
    "02-udp",
    "03-tcp",
    "04-child-rekeyed",
    "05-after-child-rekey",
    "05b-6s-later",
    "06-ike-rekeyed",
    "07-mobike",
    "08-bob-gone",
    "09-bob-reconnected",
    "10-reloaded",
    "12-reconnected",
)
# IP bytes that passed the server's tunnel device, both ways, as LOG.txt of the captures tells;
# without the 304 bytes that the device itself sent before anybody did.
TUNNEL = {
    "01-ping": 188 + 492 - 304,
    "02-udp": 1_028_188 + 492 - 304,
    "03-tcp": 58_723_760 + 47_533_856 - 304,
    "05-after-child-rekey": 59_762_576 + 47_560_956 - 304,
    "06-ike-rekeyed": 60_801_496 + 47_587_052 - 304,
    "07-mobike": 61_840_364 + 47_614_700 - 304,
    "10-reloaded": 62_895_036 + 47_658_016 - 304,
}
AFTER_RESTART = 1_038_816 + 29_844 - 304
SOURCE = Source(
    parse,
    from_zero,
    counters_return=False,
    names_accounts=True,
    settings=strongswan.Settings,
    connect=strongswan.connect,
)
# The server's restart lies between the last two stages.
RESTARTED = "strongswan/11-restarted.list-sas.raw"

HOST = "203.0.113.9"
VIP = "10.96.1.1 fd96:1::1"
SPIS = "284824afe837c1f3_i d4b396fe3cd2e513_r*"
PRIVATE = (
    r"10\.\d+\.\d+|fd[0-9a-f]{2}:|203\.0\.113|[0-9a-f]{16}|8a27ee9f|dcf5dd4c|c081a1ec|ago|4500"
)


def totals(*captures: Capture) -> dict[str, int]:
    """Return bytes by account after captures of one day."""
    state = RunningTotals(SOURCE)
    for each in captures:
        state = state.after(each, DAY)
    return {record.user: record.bytes for record in state.records("us-nyc", "9f3c2b7a11d04e55")}


def stage(name: str, form: str) -> Capture:
    """Return one captured stage in one form."""
    return parse(text_of(f"strongswan/{name}.{form}"))


def names(capture: Capture) -> list[tuple[str, int]]:
    """Return names and bytes in order."""
    return sorted((reading.name, reading.bytes) for reading in capture.readings)


def child(number: int = 1, received: int = 5, sent: int = 6, state: str = "INSTALLED") -> str:
    """Return a CHILD SA as `swanctl --list-sas` shows it."""
    return (
        f"  net: #{number}, reqid 1, {state}, TUNNEL-in-UDP, ESP:AES_GCM_16-256\n"
        "    installed 11s ago, rekeying in 3000s, expires in 3600s\n"
        f"    in  {number:08x}, {received:6} bytes, {0:5} packets,     3s ago\n"
        f"    out 2e495a0b, {sent:6} bytes, {0:5} packets\n"
        "    local  10.96.0.1/32 fd96::1/128\n"
        "    remote 10.96.1.1/32 fd96:1::1/128\n"
    )


def shown(peer: str, *children: str, state: str = "ESTABLISHED", number: int = 1) -> str:
    """Return an IKE SA as `swanctl --list-sas` shows it; `peer` is its line of the peer."""
    return (
        f"rw: #{number}, {state}, IKEv2, {SPIS}\n"
        "  local  'vpn.test' @ 10.77.1.1[4500]\n"
        f"  remote {peer}\n"
        "  AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/CURVE_25519\n"
        "  established 11s ago\n" + "".join(children)
    )


def peer(own: str, other: str | None = None, kind: str = "EAP", vips: str = VIP) -> str:
    """Return what stands after `remote`, as swanctl's own format string does it."""
    second = "" if other is None else f" {kind}: '{other}'"
    last = f" [{vips}]" if vips else ""
    return f"'{own}' @ {HOST}[4500]{second}{last}"


def raw(own: str, other: str | None = None, *, count: int = 5) -> str:
    """Return the same SA as `swanctl --list-sas --raw` shows it."""
    second = "" if other is None else f" remote-eap-id={other}"
    return (
        "list-sa event {rw {uniqueid=1 version=2 state=ESTABLISHED local-host=10.77.1.1"
        f" local-port=4500 local-id=vpn.test remote-host={HOST} remote-port=4500"
        f" remote-id={own}{second} initiator-spi=284824afe837c1f3"
        " responder-spi=d4b396fe3cd2e513 nat-any=yes established=1 remote-vips=[10.96.1.1]"
        " child-sas {net-1 {name=net uniqueid=1 reqid=1 state=INSTALLED mode=TUNNEL"
        f" spi-in=dcf5dd4c spi-out=2e495a0b bytes-in={count} packets-in=0 bytes-out=6"
        " local-ts=[10.96.0.1/32] remote-ts=[10.96.1.1/32]}}}}\nlist-sas reply {}\n"
    )


# -- captures of a real daemon -----------------------------------------------------------------


@pytest.mark.parametrize("name", goldens("strongswan"))
def test_captures_of_a_real_daemon(name: str) -> None:
    assert said(parse(text_of(name))) == golden(name)


def test_there_is_a_golden_output_for_every_stage_and_form() -> None:
    found = {Path(param.values[0]).name for param in goldens("strongswan")}
    assert {f"{name}.{form}" for name in STAGES for form in FORMS[:3]} <= found


@pytest.mark.parametrize("name", STAGES)
def test_the_forms_of_one_stage_say_the_same(name: str) -> None:
    in_text, in_raw, in_json = (stage(name, form) for form in FORMS[:3])
    assert {(r.counter, r.account, r.bytes) for r in in_text.readings} == {
        (r.counter, r.account, r.bytes) for r in in_raw.readings
    }
    assert {r.counter for r in in_text.readings} == {r.counter for r in in_json.readings}
    assert said(in_text) == said(in_raw) == said(in_json)
    assert {c.key for c in in_text.connections} == {c.key for c in in_raw.connections}
    assert set(in_raw.connections) == set(in_json.connections)
    assert in_text.keyed_by == in_raw.keyed_by == in_json.keyed_by
    # Brief rows were captured a moment later, when a deleted child was gone (08).
    brief = stage(name, FORMS[3])
    assert set(names(brief)) <= set(names(in_raw))
    assert len(brief.readings) == len(in_raw.readings) or name == "08-bob-gone"


@pytest.mark.parametrize("name", ["04-child-rekeyed", "06-ike-rekeyed", "11-restarted"])
def test_raw_and_its_pretty_form_say_the_same(name: str) -> None:
    plain, pretty = (
        parse(text_of(f"strongswan/second-run-{name}.list-sas.{form}"))
        for form in ("raw", "pretty")
    )
    assert set(plain.readings) == set(pretty.readings)
    assert set(plain.connections) == set(pretty.connections)


# -- the truth of LOG.txt ----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("last", sorted(TUNNEL))
def test_sums_are_what_passed_the_tunnel_to_the_byte(form: str, last: str) -> None:
    """Over a rekey of the CHILD SA, of the IKE SA, MOBIKE, a reconnect and a reload."""
    upto = STAGES[: STAGES.index(last) + 1]
    assert sum(totals(*(stage(name, form) for name in upto)).values()) == TUNNEL[last]


def test_udp_is_exact() -> None:
    assert totals(stage("01-ping", "vici"), stage("02-udp", "vici")) == {"alice": 1_028_000}


@pytest.mark.parametrize("form", FORMS)
def test_a_restart_counts_the_new_children_and_nothing_twice(form: str) -> None:
    """Unique ids begin at 1 again."""
    captures = [stage(name, form) for name in STAGES]
    grown = totals(*captures)
    assert sum(grown.values()) == TUNNEL["10-reloaded"] + AFTER_RESTART
    if form != FORMS[3]:
        empty = parse(text_of(RESTARTED))
        assert totals(*captures[:-1], empty, captures[-1]) == grown


def test_rekeyed_children_are_added_up_while_both_are_listed() -> None:
    capture = stage("05-after-child-rekey", "list-sas.txt")
    alice = [count for name, count in names(capture) if name == "alice"]
    assert alice == [1_038_816 + 27_100, 53_217_748 + 24_412_248]


def test_an_ike_rekey_and_mobike_move_a_child_without_a_loss() -> None:
    before, rekeyed, moved = (
        {r.counter for r in stage(name, "vici").readings if r.name == "alice"}
        for name in ("05b-6s-later", "06-ike-rekeyed", "07-mobike")
    )
    assert before == rekeyed
    assert rekeyed < moved


# -- connections -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS[:3])
def test_cs_1_a_connection_has_an_origin_in_place_of_its_host(form: str) -> None:
    asked: list[str] = []

    def locate(address: str) -> Origin:
        asked.append(address)
        return Origin("DE", len(asked))

    capture = parse(text_of(f"strongswan/00-connected.{form}"), locate)
    assert asked == ["fd77:2::2", "10.77.1.2"]
    assert [(c.name, c.account, c.origin, c.established) for c in capture.connections] == [
        ("bob@example.org", "bob@example.org", Origin("DE", 1), True),
        ("alice", "alice", Origin("DE", 2), True),
    ]


def test_mobike_is_no_new_connection_and_an_ike_rekey_looks_like_one_in_text() -> None:
    keys = [
        {c.key for c in stage(name, "vici").connections if c.name == "alice"}
        for name in ("05b-6s-later", "06-ike-rekeyed", "07-mobike")
    ]
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize(
    ("state", "children", "established"),
    [
        ("CONNECTING", (), False),
        ("CREATED", (), False),
        ("ESTABLISHED", (), True),
        ("REKEYING", (), True),
        ("REKEYED", (), True),
        ("DELETING", (), False),
        ("DELETING", (child(),), True),
    ],
)
def test_the_state_tells_whether_a_connection_is_established(
    state: str, children: tuple[str, ...], established: bool
) -> None:
    capture = parse(shown(peer("alice"), *children, state=state))
    assert [c.established for c in capture.connections] == [established]


def test_an_attempt_whose_user_is_not_known_yet_is_a_connection_of_nobody() -> None:
    (connection,) = parse(shown(f"'%any' @ {HOST}[500]", state="CONNECTING")).connections
    assert (connection.name, connection.account, connection.established) == (None, None, False)


def test_a_sa_that_another_node_holds_is_no_connection_here() -> None:
    assert parse(shown(peer("alice"), state="PASSIVE")).connections == ()


# -- identities --------------------------------------------------------------------------------

ODD_NAMES = (
    "C=CH, O=strongSwan Project, CN=bob@strongswan.org",
    "o'neill",
    "'",
    "''",
    "a, b",
    "x [10.0.0.1]".replace("10.0.0.1", "y"),
    "x] EAP",
    "a @ b",
    "EAP: '",
    "' @",
    "{",
    "}}}}",
    "a=b",
    "用户",
)


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("vips", ["", VIP])
@pytest.mark.parametrize("kind", ["EAP", "XAuth"])
def test_odd_names_between_quotes_are_read(name: str, vips: str, kind: str) -> None:
    assert names(parse(shown(peer(name, vips=vips), child()))) == [(name, 11)]
    assert names(parse(shown(peer("device", name, kind, vips), child()))) == [(name, 11)]
    assert names(parse(shown(peer(name, "alice", kind, vips), child()))) == [("alice", 11)]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_without_quotes_are_read(name: str) -> None:
    assert names(parse(raw(name))) == [(name, 11)]
    assert names(parse(raw("device", name))) == [(name, 11)]
    assert names(parse(raw(name, "alice"))) == [("alice", 11)]


FORGED = (
    f"x' @ {HOST}[4500] EAP: 'victim",
    f"x' @ {HOST} EAP: 'victim' @ {HOST}[1] EAP: '",
    f"x' @ {HOST}[4500] EAP: ' @ {HOST}[4500] EAP: 'victim",
    f"victim' @ {HOST}[4500]",
    f"victim' @ {HOST}[4500] [{VIP}]",
    "x remote-eap-id=victim",
    "x remote-xauth-id=victim initiator-spi=284824afe837c1f3 responder-spi=d4b396fe3cd2e513",
    "x remote-id=victim",
    "x {name=net uniqueid=9 reqid=1 state=INSTALLED spi-in=dcf5dd4c bytes-in=9 bytes-out=9}",
    "x child-sas {net-9 {name=net uniqueid=9 reqid=1 state=INSTALLED bytes-in=9 bytes-out=9}}}}",
)


@pytest.mark.parametrize(
    ("forged", "other"),
    [
        (forged, other)
        for forged in FORGED
        for other in (None, "attacker")
        # Without quotes this is what an SA with another identity looks like.
        if other or not forged.startswith("x remote-eap-id")
    ],
)
def test_a_forged_identity_charges_nobody_else(forged: str, other: str | None) -> None:
    """The IKE identity is the peer's own choice where EAP tells who it is."""
    for text in (shown(peer(forged, other), child()), raw(forged, other)):
        try:
            capture = parse(text)
        except BadInputError:
            continue
        assert {(r.name, r.bytes) for r in capture.readings} <= {(other or forged, 11)}
        assert capture.readings or capture.dropped


@given(
    st.lists(st.sampled_from(["'", " @ ", HOST, "[1]", " EAP: '", "victim", " [", "]", "::"])),
    st.none()
    | st.lists(st.sampled_from(["'", " @ ", HOST, "[1]", " XAuth: '", "victim", " EAP: '"])),
    st.sampled_from(["", VIP]),
)
def test_a_name_made_of_the_format_gives_the_true_account_or_none(
    own: list[str], other: list[str] | None, vips: str
) -> None:
    true = "".join(own if other is None else other)
    second = None if other is None else "".join(other)
    capture = parse(shown(peer("".join(own), second, vips=vips), child()))
    assert names(capture) in ([(true, 11)], [])
    assert len(capture.readings) + sum(capture.dropped.values()) == 1


FRAGMENTS = (" ", "=", "{", "}", "remote-id", "remote-eap-id", "uniqueid", "child-sas", "9")


@given(
    st.lists(st.sampled_from([*FRAGMENTS, " bytes-in=", " initiator=yes"])),
    st.lists(st.sampled_from([" ", "=", "{", "}", "victim"])),
)
def test_a_raw_name_made_of_the_format_gives_the_true_account_or_none(
    own: list[str], other: list[str]
) -> None:
    try:
        capture = parse(raw("".join(own), "".join(other)))
    except BadInputError:
        return
    assert names(capture) in ([("".join(other), 11)], [])


def test_an_empty_eap_identity_is_nobody_and_never_the_name_that_the_peer_chose() -> None:
    capture = parse(shown(peer("victim", ""), child()) + shown(peer("bob"), child(2), number=2))
    assert names(capture) == [("bob", 11)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("203.0.113.77", Drop.ADDRESS_LIKE),
        ("bob 13:37", Drop.TIMESTAMP_LIKE),
        ("x" * 129, Drop.BAD_FORMAT),
        ("bob\u202e", Drop.BAD_FORMAT),
        ("%any", Drop.UNREADABLE),
        ("", Drop.UNREADABLE),
    ],
)
def test_cs_6_an_account_no_record_may_carry_is_dropped_and_counted(
    name: str, reason: Drop
) -> None:
    capture = parse(shown(peer(name), child(1)) + shown(peer("alice"), child(2), number=2))
    assert names(capture) == [("alice", 11)]
    assert capture.dropped == {reason: 1}
    assert [c.account for c in capture.connections] == [None, "alice"] or name == ""


# -- other versions ----------------------------------------------------------------------------


def test_text_of_5_5_with_compression_and_marks() -> None:
    text = shown(peer("alice"), child(0x8A27EE9F)).replace(
        "in  8a27ee9f,", "in  8a27ee9f/1a2b (0x0000002a/0xffffffff),"
    )
    assert names(parse(text.replace("net: #2317872799", "net: #7"))) == [("alice", 11)]


def test_text_of_6_0_with_interfaces_labels_and_cpus() -> None:
    text = shown(peer("alice"), child())
    text = text.replace("reqid 1, INSTALLED", "reqid 1, cpu 3, INSTALLED")
    text = text.replace("in  00000001,", "in  00000001 (-|0x0000002a),")
    text = text.replace("    local  10", "    label  system_u:object_r:ipsec_t:s0\n    local  10")
    text = text.replace("CURVE_25519\n", "CURVE_25519/KE1_ML_KEM_768/PPK\n  active:  IKE_MOBIKE\n")
    assert names(parse(text)) == [("alice", 11)]


def test_children_of_one_name_in_json_of_5_5_are_all_counted() -> None:
    text = (
        '{"rw": {"uniqueid": "1", "state": "ESTABLISHED", "remote-id": "alice", "child-sas": {'
        '"net": {"uniqueid": "1", "spi-in": "00000001", "bytes-in": "1", "bytes-out": "2"},'
        '"net": {"uniqueid": "2", "spi-in": "00000002", "bytes-in": "4", "bytes-out": 8}}}}'
    )
    assert names(parse(text)) == [("alice", 3), ("alice", 12)]


def test_json_in_a_list_or_under_a_name_is_read() -> None:
    decoder = json.JSONDecoder()
    text = text_of("strongswan/00-connected.vici")
    objects = []
    while text:
        found, end = decoder.raw_decode(text)
        objects.append(found)
        text = text[end:].lstrip()
    assert len(objects) == 2
    expected = golden("strongswan/00-connected.vici")
    assert said(parse(json.dumps(objects))) == expected
    assert said(parse(json.dumps({"sas": objects}))) == expected


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    for form in FORMS:
        name = f"strongswan/04-child-rekeyed.{form}"
        text = "\ufeff" + text_of(name).replace("\n", "\r\n")
        assert said(parse(text)) == said(parse(text_of(name)))


def test_children_without_counters_yet_are_unfinished_and_moved_ones_unreadable() -> None:
    """What is only moved had a number, so the totals must go on remembering it."""
    nothing = child().replace("     5 bytes,     0 packets,     3s ago", " (null) bytes, (null) p")
    nothing = nothing.replace("00000001", "(null)").replace("     6 bytes", "(null) bytes")
    for state, reason in (("CREATED", Drop.UNFINISHED), ("UPDATING", Drop.UNREADABLE)):
        capture = parse(shown(peer("alice"), nothing.replace("INSTALLED", state), child(2)))
        assert names(capture) == [("alice", 11)]
        assert capture.dropped == {reason: 1}


# -- could not read ----------------------------------------------------------------------------


def test_nothing_to_read_is_not_could_not_read() -> None:
    for text in (text_of(RESTARTED), "[]", "{}", "list-sas reply {\n}\n"):
        capture = parse(text)
        assert (capture.readings, capture.dropped, capture.connections) == ((), {}, ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "secret\n",
        '{"secret": 1}',
        '["secret"]',
        '{"secret": ',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        shown(peer("secret"), child()).removesuffix("\n"),
        shown(peer("secret"), child()).rsplit("    remote", 1)[0],
        shown(peer("secret")).rsplit("  established", 1)[0],
        raw("secret").removesuffix("list-sas reply {}\n"),
        raw("secret") * 2,
        "list-sa event {\n  rw {\n    uniqueid = 1\nlist-sas reply {}\n",
        "list-sas reply {",
    ],
    ids=range(15),
)
def test_could_not_read_is_an_error_without_input_text(text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
    assert "203.0" not in message


def test_an_empty_list_in_text_could_not_be_read() -> None:
    """A `swanctl` that failed prints the same."""
    with pytest.raises(BadInputError):
        parse("")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_cut_off_is_an_error_or_a_part_and_never_another_number(form: str) -> None:
    text = text_of(f"strongswan/04-child-rekeyed.{form}")
    whole = {(r.counter, r.account, r.bytes) for r in parse(text).readings}
    errors = 0
    for end in range(len(text)):
        try:
            part = parse(text[:end])
        except BadInputError:
            errors += 1
            continue
        assert {(r.counter, r.account, r.bytes) for r in part.readings} <= whole
    assert errors > len(text) * 0.9


def test_rows_that_are_damaged_are_counted_and_the_rest_is_used() -> None:
    """FreeRADIUS PR 5835: one bad record must not stop the queue."""
    good = shown(peer("alice"), child(7))
    for damage, dropped in (
        ("bytes,", 1),
        ("#1, reqid", 1),
        ("rw: #1", 1),
        ("remote 'bob'", 1),
        ("    in  ", 2),
    ):
        bad = shown(peer("bob"), child(1)).replace(damage, "?", 1)
        capture = parse(bad + good)
        assert names(capture) == [("alice", 11)], damage
        assert capture.dropped == {Drop.UNREADABLE: dropped}, damage


def test_a_damaged_heading_never_gives_a_child_to_the_sa_before_it() -> None:
    text = shown(peer("alice"), child(7)) + shown(peer("bob"), child(1)).replace("rw: #1", "rw", 1)
    assert names(parse(text + shown(peer("carol"), child(3)))) == [("alice", 11), ("carol", 11)]


def test_a_child_that_is_there_twice_counts_once_with_its_larger_number() -> None:
    capture = parse(shown(peer("alice"), child(1, 5, 6), child(1, 7, 6), child(1, 6, 6)))
    assert names(capture) == [("alice", 13)]
    assert capture.dropped == {Drop.REPEATED: 2}


@pytest.mark.parametrize("count", ["-1", "1.0", "1e3", "0x10", "\u0661", "12345678901234567", ""])
def test_numbers_are_decimal_and_plausible(count: str) -> None:
    text = raw("alice").replace("bytes-in=5", f"bytes-in={count}")
    capture = parse(text)
    assert (capture.readings, capture.dropped) == ((), {Drop.UNREADABLE: 1})


def test_cs_6_nothing_private_is_shown_of_a_capture() -> None:
    for form in FORMS:
        for name in STAGES:
            capture = stage(name, form)
            seen = repr(capture) + str([(r.name, r.account, r.bytes) for r in capture.readings])
            seen += "".join(repr(r.counter) for r in capture.readings)
            seen += "".join(repr(c.key) for c in capture.connections)
            assert not re.search(PRIVATE, seen)
            assert "alice" not in repr(capture)


# -- hostile text ------------------------------------------------------------------------------

SEED = {form: text_of(f"strongswan/04-child-rekeyed.{form}") for form in FORMS}
WORDS = ["'", '"', "{", "}", "[", "]", "=", "\n", " ", "\x00", "\udcff", "#", "9" * 30, "Qsecret"]


def survives(text: str) -> None:
    """Say that `text` is read or refused, and shown nowhere."""
    try:
        shown_of_it = repr(parse(text))
    except BadInputError as error:
        shown_of_it = str(error)
        assert "\n" not in shown_of_it
    assert "secret" not in shown_of_it
    assert not re.search(PRIVATE.removesuffix("|ago|4500"), shown_of_it)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    survives(text)


@given(
    st.sampled_from(FORMS),
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 40), st.sampled_from(WORDS)), max_size=6
    ),
)
def test_any_damage_to_a_capture_is_read_or_refused(
    form: str, damages: list[tuple[int, int, str]]
) -> None:
    text = SEED[form]
    for at, width, word in damages:
        text = text[:at] + word + text[at + width :]
    survives(text)


def test_every_capture_has_a_form_that_is_known() -> None:
    """Events are another stream; they are heard, not parsed."""
    assert {path.name for path in (DATA / "strongswan").iterdir() if path.suffix != ".json"} >= {
        f"{name}.{form}" for name in STAGES for form in FORMS
    }
