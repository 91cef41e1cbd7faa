import pytest
from pydantic import ValidationError

from mediarepo.config.previews import DomainConfig, PreviewsConfig, UrlRule, UrlRulesConfig
from mediarepo.outbound.urls import MAX_WEB_URL_CHARS, parse_web_url
from mediarepo.previews.page import RequestHeaders
from mediarepo.previews.url_policy import UrlRules, parse_preview_url, preview_url


def denied(rule: UrlRule, url: str) -> bool:
    return not UrlRules(UrlRulesConfig(deny=[rule])).allows(parse_preview_url(url))


@pytest.mark.parametrize(
    ("rule", "url", "expected"),
    [
        (UrlRule(host="example.org"), "https://EXAMPLE.org./", True),
        (UrlRule(host="Example.ORG"), "https://example.org/", True),
        (UrlRule(host="example.org"), "https://www.example.org/", False),
        (UrlRule(host="*.example.org"), "https://www.example.org/", True),
        (UrlRule(host="*.example.org"), "https://example.org/", False),
        (UrlRule(host="*.example.org"), "https://example.org.evil.example/", False),
        (UrlRule(host="*.m\u00fcller.example"), "https://www.M\u00dcLLER.example/", True),
        (UrlRule(host="xn--mller-kva.example"), "https://m\u00fcller.example/", True),
        (UrlRule(host="^(.+\\.)?example\\.(org|com)$"), "https://a.example.com/", True),
        (UrlRule(host="^(.+\\.)?example\\.(org|com)$"), "https://anexample.com/", False),
        (UrlRule(host="192.168.*"), "http://192.168.0.1/", True),
        (UrlRule(host="[2600::1]"), "http://[2600:0::1]/", True),
        (UrlRule(host="2600::*"), "http://[2600::1]/", True),
        (UrlRule(host="93.184.216.34"), "http://[::ffff:5db8:d822]/", True),
        (UrlRule(host="93.184.216.34"), "http://[64:ff9b::93.184.216.34]/", True),
        (UrlRule(host="93.184.*"), "http://[64:ff9b:1::5db8:d822]/", True),
        (UrlRule(host="93.184.216.34"), "http://[2002:5db8:d822::]/", True),
        (UrlRule(host="93.184.216.34"), "http://[::ffff:0:5db8:d822]/", True),
        (UrlRule(host="93.184.216.34"), "http://[2600::5efe:5db8:d822]/", True),
        (UrlRule(host="93.184.216.34"), "http://[64:ff9b::93.184.216.35]/", False),
        (UrlRule(host="64:ff9b::*"), "http://[64:ff9b::93.184.216.34]/", True),
        (UrlRule(scheme="http"), "http://example.org/", True),
        (UrlRule(scheme="http"), "https://example.org/", False),
        (UrlRule(port=8080), "http://example.org:8080/", True),
        (UrlRule(port=443), "https://example.org/", True),
        (UrlRule(port=443), "http://example.org/", False),
        (UrlRule(host="example.org", path="/private/*"), "https://example.org/private/x", True),
        (UrlRule(host="example.org", path="/private/*"), "https://example.org/a/../%70rivate/x", True),
        (UrlRule(host="example.org", path="/private/*"), "https://example.org/public/private/x", False),
        (UrlRule(host="example.org", path="/private/*"), "https://example.com/private/x", False),
        (UrlRule(path="*.exe"), "https://example.org/a.EXE?x", True),
        (UrlRule(url="https://example.org/?*token=*"), "https://example.org/?a=b&token=c", True),
        (UrlRule(url="^https://[^/]+/[0-9]+$"), "https://example.org/123", True),
        (UrlRule(path="/a[1]"), "https://example.org/a1", False),
    ],
)
def test_a_rule_fits_what_all_its_parts_fit(rule: UrlRule, url: str, *, expected: bool) -> None:
    assert denied(rule, url) is expected


def test_denying_goes_before_allowing() -> None:
    rules = UrlRules(
        UrlRulesConfig(allow=[UrlRule(host="*.example.org")], deny=[UrlRule(scheme="http"), UrlRule(path="/x")])
    )

    assert rules.refusal(parse_preview_url("https://a.example.org/")) is None
    assert rules.refusal(parse_preview_url("https://a.example.org/x")) == "url_rules.deny[1]"
    assert rules.refusal(parse_preview_url("https://a.example.com/")) == "url_rules.allow"
    assert UrlRules(UrlRulesConfig()).allows(parse_preview_url("http://anything.example/"))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"host": ""},
        {"host": "^("},
        {"url": "a" * 2000},
        {"port": 0},
        {"port": "*"},
        {"scheme": "ftp"},
        {"hots": "x"},
    ],
)
def test_a_rule_that_says_nothing_or_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UrlRule.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "a", "headers": {"Host": "b"}},
        {"host": "a", "headers": {"content-length": "1"}},
        {"host": "a", "headers": {"X y": "1"}},
        {"host": "a", "headers": {"X": "1\r\nY: 2"}},
        {"host": "a", "user_agent": "\n"},
        {"headers": {}},
    ],
)
def test_headers_that_cannot_be_chosen_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DomainConfig.model_validate(wrong)


def test_the_first_domain_that_fits_says_how_it_is_asked() -> None:
    headers = RequestHeaders(
        PreviewsConfig(
            user_agent="us",
            accept_language="en",
            domains=[
                DomainConfig(host="*.bird.example", user_agent="facebookexternalhit/1.1", headers={"X-A": "1"}),
                DomainConfig(host="^bird", accept_language="de", headers={"user-agent": "them"}),
                DomainConfig(host="*", user_agent="never"),
            ],
        )
    )

    assert headers.of("www.bird.example") == {
        "User-Agent": "facebookexternalhit/1.1",
        "Accept-Language": "en",
        "X-A": "1",
    }
    assert headers.of("bird.example") == {"Accept-Language": "de", "user-agent": "them"}
    assert headers.of("other.example") == {"User-Agent": "never", "Accept-Language": "en"}
    assert RequestHeaders(PreviewsConfig(user_agent="us", accept_language="en")).of("x") == {
        "User-Agent": "us",
        "Accept-Language": "en",
    }


def test_limits_of_previews_are_those_of_the_configuration() -> None:
    limits = PreviewsConfig(max_title_chars=50, max_description_chars=60, max_images=2).limits

    assert (limits.max_title_chars, limits.max_description_chars, limits.max_images) == (50, 60, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_page_bytes": 1},
        {"max_page_bytes": 2**30},
        {"timeout_ms": 0},
        {"ttl_ms": -1},
        {"user_agent": "a\nb"},
        {"url_rules": {"deny": [{}]}},
        {"max_images": 100},
        {"enabled": True},
    ],
)
def test_settings_out_of_their_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PreviewsConfig.model_validate(wrong)


def test_rules_see_the_whole_of_the_longest_url_that_is_followed() -> None:
    start = "http://example.org/?"
    longest = preview_url(parse_web_url(start + "x" * (MAX_WEB_URL_CHARS - len(start) - 6) + "secret"))
    assert len(longest.text) == MAX_WEB_URL_CHARS
    for rule in (UrlRule(url="*secret"), UrlRule(url="^.*secret$")):
        assert not UrlRules(UrlRulesConfig(deny=[rule])).allows(longest)
