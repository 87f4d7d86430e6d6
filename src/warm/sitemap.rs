//! Sitemaps (sitemaps.org 0.9) and lists of URLs: which pages a site names.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use quick_xml::events::Event;
use quick_xml::{Reader, XmlVersion};
use thiserror::Error;

/// The longest sitemap or list, unpacked, in bytes: what the protocol allows.
pub const LONGEST: usize = 50 << 20;
/// The most URLs that are taken from one: what the protocol allows.
const MOST: usize = 50_000;

/// How deep elements may lie in one another: a sitemap needs three, its extensions a few more.
const DEEPEST: usize = 32;

/// What one sitemap names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sitemap {
    pub pages: Vec<String>,
    /// Further sitemaps, where it is an index.
    pub maps: Vec<String>,
}

/// Why a text is no sitemap.
#[derive(Debug, Error)]
pub enum BadSitemap {
    #[error("it is longer than {LONGEST} bytes unpacked")]
    TooLong,
    #[error("it is no whole gzip")]
    Packed(#[source] std::io::Error),
    #[error("it is not UTF-8")]
    Text,
    #[error("its elements lie deeper than {DEEPEST} in one another")]
    TooDeep,
    #[error("it is not well-formed XML")]
    Xml(#[source] quick_xml::Error),
}

/// Reads a sitemap, an index of them, or a list with a URL a line; each may be packed with gzip.
/// Names beyond the 50,000th are left out.
pub fn read(bytes: &[u8]) -> Result<Sitemap, BadSitemap> {
    let unpacked;
    let bytes = match bytes {
        [0x1f, 0x8b, ..] => {
            unpacked = unpack(bytes)?;
            &unpacked
        }
        plain => plain,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| BadSitemap::Text)?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    match text.starts_with('<') {
        true => xml(text),
        false => Ok(Sitemap {
            pages: lines(text).take(MOST).map(str::to_owned).collect(),
            maps: Vec::new(),
        }),
    }
}

/// The URLs of a list: one a line; empty lines and those that begin with `#` say nothing.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, BadSitemap> {
    let mut unpacked = Vec::new();
    let most = LONGEST as u64 + 1;
    let read = MultiGzDecoder::new(bytes)
        .take(most)
        .read_to_end(&mut unpacked);
    read.map_err(BadSitemap::Packed)?;
    match unpacked.len() > LONGEST {
        true => Err(BadSitemap::TooLong),
        false => Ok(unpacked),
    }
}

fn xml(text: &str) -> Result<Sitemap, BadSitemap> {
    let mut reader = Reader::from_str(text);
    let mut sitemap = Sitemap::default();
    // The names of the elements around the text: only `loc` directly in `url` or `sitemap` counts,
    // as extensions have a `loc` of their own.
    let mut open: Vec<String> = Vec::new();
    let mut place = String::new();
    loop {
        match reader.read_event().map_err(BadSitemap::Xml)? {
            Event::Start(_) if open.len() == DEEPEST => return Err(BadSitemap::TooDeep),
            Event::Start(start) => {
                open.push(start.name().as_ref().to_owned());
                place.clear();
            }
            Event::Text(text) => {
                place += &text.xml_content(XmlVersion::Implicit1_0);
            }
            Event::CData(text) => {
                place += &text.xml_content(XmlVersion::Implicit1_0);
            }
            Event::GeneralRef(entity) => place.extend(character(&entity)),
            Event::End(_) => {
                let names: Vec<_> = open.iter().map(String::as_str).collect();
                let list = match names[..] {
                    [.., "url", "loc"] => Some(&mut sitemap.pages),
                    [.., "sitemap", "loc"] => Some(&mut sitemap.maps),
                    _ => None,
                };
                if let Some(list) = list.filter(|list| list.len() < MOST) {
                    list.push(place.trim().to_owned());
                }
                place.clear();
                open.pop();
            }
            Event::Eof => return Ok(sitemap),
            _ => {}
        }
    }
}

/// What a reference stands for; one that nobody declared stands for nothing.
fn character(entity: &quick_xml::events::BytesRef<'_>) -> Option<char> {
    if let Ok(Some(character)) = entity.resolve_char_ref() {
        return Some(character);
    }
    quick_xml::escape::resolve_predefined_entity(entity)?
        .chars()
        .next()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const MAP: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="i">
          <url><loc>https://a.example/?a=1&amp;b=2</loc><lastmod>2026-01-01</lastmod></url>
          <!-- <url><loc>https://a.example/hidden</loc></url> -->
          <url>
            <loc> <![CDATA[https://a.example/x]]> </loc>
            <image:image><image:loc>https://a.example/i.png</image:loc></image:image>
          </url>
          <url><loc>https://a.example/&#x7e;y</loc></url>
        </urlset>"#;

    fn packed(text: &str) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn the_pages_of_a_sitemap_are_read_packed_or_not() {
        let pages = [
            "https://a.example/?a=1&b=2",
            "https://a.example/x",
            "https://a.example/~y",
        ];
        for bytes in [MAP.as_bytes(), &packed(MAP)] {
            let sitemap = read(bytes).unwrap();
            assert_eq!(sitemap.pages, pages);
            assert!(sitemap.maps.is_empty());
        }
    }

    #[test]
    fn an_index_names_sitemaps() {
        let index =
            "<sitemapindex><sitemap><loc>https://a.example/1.xml.gz</loc></sitemap></sitemapindex>";
        assert_eq!(
            read(index.as_bytes()).unwrap().maps,
            ["https://a.example/1.xml.gz"]
        );
    }

    #[test]
    fn a_list_has_a_url_a_line() {
        let list = "\u{feff}# what matters\nhttps://a.example/\r\n\n  https://a.example/b\n";
        let pages = ["https://a.example/", "https://a.example/b"];
        assert_eq!(read(list.as_bytes()).unwrap().pages, pages);
    }

    #[test]
    fn what_is_too_long_or_broken_is_said() {
        let bomb = packed(&" ".repeat(LONGEST + 1));
        assert!(matches!(read(&bomb), Err(BadSitemap::TooLong)));
        assert!(matches!(
            read(&packed(MAP)[..40]),
            Err(BadSitemap::Packed(_))
        ));
        assert!(matches!(
            read(b"<urlset><url></urlset>"),
            Err(BadSitemap::Xml(_))
        ));
        assert!(matches!(read(b"\xff"), Err(BadSitemap::Text)));
        let deep = "<a>".repeat(DEEPEST + 1);
        assert!(matches!(read(deep.as_bytes()), Err(BadSitemap::TooDeep)));
        let many = "https://a.example/\n".repeat(MOST + 1);
        assert_eq!(read(many.as_bytes()).unwrap().pages.len(), MOST);
    }
}
