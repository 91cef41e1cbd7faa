"""The parsed content of a web page, and the preview made of it."""

from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True)
class PreviewUrl:
    """A normalized page URL: ASCII, host in lower case, `port` and `path` always set, no fragment."""

    scheme: str
    host: str
    port: int
    path: str
    query: str | None
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image of a page, by its absolute http(s) URL; sizes are the page's claims, `rule` is where it was found."""

    url: str
    rule: str
    alt: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A run of visible text; `in_article` when in the main content, `is_paragraph` when in a <p>."""

    text: str
    is_paragraph: bool
    in_article: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedData:
    """A JSON-LD object about the page's subject, or about the site (`is_site`); `type` in lower case."""

    type: str
    is_site: bool = False
    title: str | None = None
    description: str | None = None
    author: str | None = None
    publisher: str | None = None
    published: str | None = None
    modified: str | None = None
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The parsed content of a page, unshortened; `url` is where it was answered, `base_url` the base of relative URLs.

    `meta` are pairs in page order, names in lower case. `oembed_urls` and `refresh_url` are absolute.
    """

    url: str
    base_url: str = ""
    encoding: str | None = None
    language: str | None = None
    title: str | None = None
    canonical_url: str | None = None
    refresh_url: str | None = None
    headings: tuple[tuple[str, str], ...] = ()
    meta: tuple[tuple[str, str], ...] = ()
    pictures: tuple[Picture, ...] = ()
    icon_urls: frozenset[str] = frozenset()
    blocks: tuple[Block, ...] = ()
    linked_data: tuple[LinkedData, ...] = ()
    oembed_urls: tuple[str, ...] = ()

    @property
    def things(self) -> tuple[LinkedData, ...]:
        """The linked data about the page's subject."""
        return tuple(thing for thing in self.linked_data if not thing.is_site)

    def first(self, *names: str) -> str | None:
        """Return the first non-blank value of these meta names, in the order of the names."""
        for name in names:
            for known, value in self.meta:
                if known == name and value.strip():
                    return value
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OEmbed:
    """An oEmbed response (oembed.com); `text` is the text of its HTML, `picture` its photo or thumbnail."""

    type: str
    title: str | None = None
    author_name: str | None = None
    provider_name: str | None = None
    text: str | None = None
    picture: Picture | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewLimits:
    """The longest texts of a preview, in characters, and how many images are tried."""

    max_title_chars: int = 200
    max_description_chars: int = 500
    max_value_chars: int = 200
    max_url_chars: int = 2048
    max_images: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewImage:
    """An image stored for a preview; `mxc` is its address here."""

    mxc: str
    content_type: str
    size_bytes: int
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A preview before its image was fetched: `pictures` are to be tried in order.

    `rules` tells for each of `values` where it was found.
    """

    values: dict[str, str | int]
    rules: dict[str, str] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()

    @property
    def says_nothing(self) -> bool:
        """Whether it has nothing beyond the URL itself."""
        return not self.pictures and set(self.rules.values()) <= {"the URL"}

    def with_image(self, picture: Picture, image: PreviewImage) -> Self:
        """Return the JSON response with one of `pictures` (client-server API, GET preview_url)."""
        given: dict[str, str | int | None] = {
            "og:image": image.mxc,
            "og:image:type": image.content_type,
            "og:image:width": image.width,
            "og:image:height": image.height,
            "og:image:alt": picture.alt,
            "matrix:image:size": image.size_bytes,
        }
        known = {name: value for name, value in given.items() if value is not None}
        rules = {**self.rules, **dict.fromkeys(known, picture.rule)}
        return type(self)(values={**self.values, **known}, rules=rules, pictures=self.pictures)
