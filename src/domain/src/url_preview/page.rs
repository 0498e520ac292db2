//! What a page says of itself. Its tags are read one after the other (html5ever's tokenizer) and no tree is made of them: what a preview wants does not depend
//! on what is in what, so that a page may nest as deep as it likes.

use std::{cell::RefCell, collections::BTreeMap, mem};

use encoding_rs::Encoding;
use html5ever::{
    Attribute,
    tendril::StrTendril,
    tokenizer::{
        BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
        states::RawKind,
    },
};

use super::charset::of_content_type;

/// The most properties that are remembered, and the longest name and value of one, in bytes.
const MAX_PROPERTIES: usize = 64;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 4096;
/// How much of the page's text is remembered, in bytes.
const MAX_TEXT: usize = 1024;
/// A paragraph that is shorter is a button's or a date, in bytes.
const LEAST_PARAGRAPH: usize = 40;
/// How much is given to the tokenizer at a time, and how much may pass without anything coming of it, in bytes. The attributes of one tag are compared
/// with each other, so that a tag without an end would cost the square of its length.
const PIECE: usize = 4 << 10;
const MAX_SILENCE: usize = 64 << 10;

/// What a page says of itself.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// What previews are made of among its metadata, by names in lower case; of several of one name the first.
    pub(super) meta: BTreeMap<String, String>,
    /// The title.
    pub(super) title: String,
    /// What its first paragraphs say.
    pub(super) text: String,
    /// A picture that stands for the page, as a link.
    pub(super) picture: Option<String>,
    /// Where its oEmbed document is, as a link.
    pub(super) oembed: Option<String>,
    /// What links are relative to, if it is not the page.
    pub(super) base: Option<String>,
    /// The encoding that it names.
    pub(super) encoding: Option<&'static Encoding>,
}

/// Reads a page, or its beginning. Time in proportion to its length.
pub(super) fn read(text: &str) -> Page {
    let tokenizer = Tokenizer::new(Sink::default(), TokenizerOpts::default());
    let input = BufferQueue::default();
    let mut rest = text;
    let mut silence: usize = 0;
    while !rest.is_empty() && silence < MAX_SILENCE {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE.min(rest.len())));
        rest = after;
        input.push_back(StrTendril::from_slice(piece));
        // Nothing here makes it stop before the end of its input.
        let _ = tokenizer.feed(&input);
        let mut reading = tokenizer.sink.reading.borrow_mut();
        silence = match mem::take(&mut reading.heard) {
            true => 0,
            false => silence.saturating_add(piece.len()),
        };
    }
    tokenizer.end();
    tokenizer.sink.reading.take().page
}

#[derive(Default)]
struct Sink {
    reading: RefCell<Reading>,
}

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut reading = self.reading.borrow_mut();
        match token {
            Token::TagToken(tag) => {
                reading.heard = true;
                return reading.tag(&tag);
            }
            Token::CharacterTokens(text) => {
                reading.heard = true;
                reading.text(&text);
            }
            Token::CommentToken(_) => reading.heard = true,
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// Whose text is being read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    Title,
    Paragraph,
}

#[derive(Default)]
struct Reading {
    page: Page,
    inside: Inside,
    /// The text of what is being read, so far.
    gathered: String,
    /// How many elements are open whose paragraphs are no text of the page's: menus and the like.
    aside: u32,
    /// Whether anything came of the last piece.
    heard: bool,
}

impl Reading {
    fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name = &*tag.name;
        if tag.kind == TagKind::EndTag {
            match name {
                "title" | "p" | "body" => self.finish(),
                _ if is_aside(name) => self.aside = self.aside.saturating_sub(1),
                _ => {}
            }
            return TokenSinkResult::Continue;
        }
        match name {
            "title" => self.begin(Inside::Title),
            "p" => self.begin(Inside::Paragraph),
            "br" => self.text(" "),
            "meta" => self.meta(&tag.attrs),
            "link" => self.link(&tag.attrs),
            "base" => remember(&mut self.page.base, attribute(&tag.attrs, "href")),
            _ if is_aside(name) => self.aside = self.aside.saturating_add(1),
            _ => {}
        }
        // As a tree's builder would tell it: what is in these is no markup.
        match name {
            "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
            "style" | "xmp" | "iframe" | "noembed" | "noframes" => {
                TokenSinkResult::RawData(RawKind::Rawtext)
            }
            "script" => TokenSinkResult::RawData(RawKind::ScriptData),
            "plaintext" => TokenSinkResult::Plaintext,
            _ => TokenSinkResult::Continue,
        }
    }

    fn begin(&mut self, inside: Inside) {
        self.finish();
        let wanted = match inside {
            Inside::Title => self.page.title.is_empty(),
            Inside::Paragraph => self.aside == 0 && self.page.text.len() < MAX_TEXT / 4,
            Inside::Nothing => false,
        };
        if wanted {
            self.inside = inside;
        }
    }

    fn text(&mut self, text: &str) {
        if self.inside != Inside::Nothing && self.gathered.len() < MAX_TEXT {
            let room = MAX_TEXT.min(text.len());
            self.gathered.push_str(
                text.get(..text.floor_char_boundary(room))
                    .unwrap_or_default(),
            );
        }
    }

    /// What was being read has ended.
    fn finish(&mut self) {
        let text = mem::take(&mut self.gathered);
        match mem::take(&mut self.inside) {
            Inside::Title => self.page.title = text,
            Inside::Paragraph if text.trim().len() >= LEAST_PARAGRAPH => {
                if !self.page.text.is_empty() {
                    self.page.text.push(' ');
                }
                self.page.text.push_str(&text);
            }
            _ => {}
        }
    }

    fn meta(&mut self, attributes: &[Attribute]) {
        let content = attribute(attributes, "content");
        let charset = attribute(attributes, "charset");
        let named = charset.and_then(|label| Encoding::for_label(label.as_bytes()));
        let equivalent = attribute(attributes, "http-equiv");
        let is_type = equivalent.is_some_and(|it| it.eq_ignore_ascii_case("content-type"));
        let typed = content.filter(|_| is_type).and_then(of_content_type);
        self.page.encoding = self.page.encoding.or(named).or(typed);
        let name = attribute(attributes, "property").or_else(|| attribute(attributes, "name"));
        let (Some(name), Some(content)) = (name, content) else {
            return;
        };
        let name = name.trim();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":_-.".contains(&byte);
        let kept = name.len() <= MAX_NAME && name.bytes().all(fits);
        if !kept || content.len() > MAX_VALUE || content.trim().is_empty() {
            return;
        }
        let name = name.to_ascii_lowercase();
        let tells = |kind: &str| name.starts_with(kind);
        if !(tells("og:") || tells("twitter:") || name == "description") {
            return;
        }
        let meta = &mut self.page.meta;
        if meta.len() < MAX_PROPERTIES {
            meta.entry(name).or_insert_with(|| content.to_owned());
        }
    }

    fn link(&mut self, attributes: &[Attribute]) {
        let href = attribute(attributes, "href");
        let rel = attribute(attributes, "rel").unwrap_or_default();
        let is = |wanted: &str| {
            let mut words = rel.split_ascii_whitespace();
            words.any(|word| word.eq_ignore_ascii_case(wanted))
        };
        if is("image_src") {
            remember(&mut self.page.picture, href);
        }
        let kind = attribute(attributes, "type").unwrap_or_default();
        if is("alternate") && kind.trim().eq_ignore_ascii_case("application/json+oembed") {
            remember(&mut self.page.oembed, href);
        }
    }
}

/// Elements whose paragraphs are not what a page is about.
fn is_aside(name: &str) -> bool {
    matches!(
        name,
        "nav" | "header" | "footer" | "aside" | "form" | "dialog" | "noscript"
    )
}

fn attribute<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    let mut named = attributes.iter().filter(|it| &*it.name.local == name);
    named.next().map(|it| &*it.value)
}

fn remember(place: &mut Option<String>, link: Option<&str>) {
    let fits = |link: &&str| !link.trim().is_empty() && link.len() <= MAX_VALUE;
    if let (None, Some(link)) = (&place, link.filter(fits)) {
        *place = Some(link.to_owned());
    }
}
