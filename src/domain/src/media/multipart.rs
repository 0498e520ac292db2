//! The two parts of an answer with a file: metadata, then the file, read as they come.
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid>, RFC 2046

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};

use crate::remote::{ByteStream, TransportError};

/// The longest boundary (RFC 2046).
const MAX_BOUNDARY: usize = 70;
/// The most bytes of a part's headers, and of the whole first part.
const MAX_HEADERS: usize = 16 << 10;
const MAX_METADATA: usize = 64 << 10;

/// A part's headers, as far as they matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHeaders {
    pub(super) content_type: Option<String>,
    pub(super) content_disposition: Option<String>,
    /// Where the file is, if it is not here.
    pub(super) location: Option<String>,
}

/// The boundary that a `Content-Type` names.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let mut parts = content_type.split(';');
    if !parts.next()?.trim().eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let boundary = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("boundary")).then(|| value.to_owned())
    })?;
    (1..=MAX_BOUNDARY)
        .contains(&boundary.len())
        .then_some(boundary)
}

/// Reads past the metadata to the second part: its headers, and its body as it comes.
///
/// # Errors
/// For what is not of that shape; the body says the same when it ends without its boundary.
pub(super) async fn second_part(
    body: ByteStream,
    boundary: &str,
) -> Result<(PartHeaders, ByteStream), TransportError> {
    let mut reader = Reader {
        body,
        // The first boundary may be the very first thing: it then has no line break before it.
        held: BytesMut::from(&b"\r\n"[..]),
        delimiter: format!("\r\n--{boundary}").into_bytes(),
    };
    let delimiter = reader.delimiter.clone();
    reader.until(&delimiter, MAX_METADATA).await?;
    reader.until(b"\r\n", MAX_HEADERS).await?;
    // The metadata: nothing in it is needed.
    reader.until(&delimiter, MAX_METADATA).await?;
    reader.until(b"\r\n", 2).await?;
    let mut headers = PartHeaders::default();
    loop {
        let line = reader.until(b"\r\n", MAX_HEADERS).await?;
        if line.is_empty() {
            break;
        }
        headers.take(&line);
    }
    let file = stream::try_unfold((reader, false), |(mut reader, ended)| async move {
        if ended {
            return Ok(None);
        }
        let (piece, ended) = reader.piece().await?;
        Ok(Some((piece, (reader, ended))))
    });
    Ok((headers, Box::pin(file)))
}

impl PartHeaders {
    fn take(&mut self, line: &[u8]) {
        let Some((name, value)) = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.split_once(':'))
        else {
            return;
        };
        let value = Some(value.trim().to_owned());
        match name.trim().to_ascii_lowercase().as_str() {
            "content-type" => self.content_type = value,
            "content-disposition" => self.content_disposition = value,
            "location" => self.location = value,
            _ => {}
        }
    }
}

struct Reader {
    body: ByteStream,
    held: BytesMut,
    delimiter: Vec<u8>,
}

impl Reader {
    /// Everything up to `mark`, which is taken too.
    async fn until(&mut self, mark: &[u8], limit: usize) -> Result<Bytes, TransportError> {
        loop {
            if let Some(at) = find(&self.held, mark) {
                let found = self.held.split_to(at).freeze();
                drop(self.held.split_to(mark.len()));
                return Ok(found);
            }
            if self.held.len() > limit.saturating_add(mark.len()) {
                return Err(broken("a part is too long"));
            }
            self.more().await?;
        }
    }

    /// The next piece of the file, and whether it is the last.
    async fn piece(&mut self) -> Result<(Bytes, bool), TransportError> {
        loop {
            if let Some(at) = find(&self.held, &self.delimiter) {
                return Ok((self.held.split_to(at).freeze(), true));
            }
            // What could be the beginning of the delimiter stays.
            let sure = self.held.len().saturating_sub(self.delimiter.len());
            if sure > 0 {
                return Ok((self.held.split_to(sure).freeze(), false));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), TransportError> {
        match self.body.next().await {
            Some(piece) => {
                self.held.extend_from_slice(&piece?);
                Ok(())
            }
            None => Err(broken("the answer ends in the middle of a part")),
        }
    }
}

fn broken(what: &str) -> TransportError {
    TransportError::Broken(what.to_owned())
}

/// Where `mark` stands first.
fn find(held: &[u8], mark: &[u8]) -> Option<usize> {
    held.windows(mark.len()).position(|window| window == mark)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The body in pieces of a size.
    fn pieces(body: &[u8], size: usize) -> ByteStream {
        let pieces: Vec<_> = body
            .chunks(size)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        Box::pin(stream::iter(pieces))
    }

    async fn read(body: &[u8], size: usize) -> Result<(PartHeaders, Vec<u8>), TransportError> {
        let (headers, file) = second_part(pieces(body, size), "b").await?;
        let mut file = std::pin::pin!(file);
        let mut whole = Vec::new();
        while let Some(piece) = file.next().await {
            whole.extend_from_slice(&piece?);
        }
        Ok((headers, whole))
    }

    const HEAD: &str = "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n\
                        Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\n";

    #[tokio::test]
    async fn the_file_is_what_stands_between_the_boundaries_however_it_comes() {
        for file in [
            "",
            "x",
            "hello",
            "\r\n",
            "\r\n--",
            "\r\n--a\r\n--\r\n",
            "--b",
            "line\r\nline\r\n",
        ] {
            for (before, after) in [("", "--"), ("preamble\r\n", "--\r\nepilogue"), ("\r\n", "")] {
                let body = format!("{before}{HEAD}{file}\r\n--b{after}");
                for size in [1, 2, 3, 7, 1000] {
                    let (headers, whole) = read(body.as_bytes(), size).await.unwrap();
                    assert_eq!(whole, file.as_bytes(), "{size} {body:?}");
                    assert_eq!(headers.content_type.as_deref(), Some("text/plain"));
                    assert_eq!(headers.content_disposition.as_deref(), Some("attachment"));
                }
            }
        }
    }

    #[tokio::test]
    async fn what_ends_early_or_never_is_an_error() {
        let whole = format!("{HEAD}file\r\n--b--");
        for length in 0..whole.len() - 2 {
            let part = whole.get(..length).unwrap().as_bytes();
            read(part, 5).await.unwrap_err();
        }
        let endless = "x".repeat(1 << 20);
        read(endless.as_bytes(), 1000).await.unwrap_err();
        let headers = format!("--b\r\n\r\n{{}}\r\n--b\r\nA: {endless}");
        read(headers.as_bytes(), 1000).await.unwrap_err();
    }

    #[test]
    fn boundaries_are_read_from_the_content_type() {
        assert_eq!(boundary("multipart/mixed; boundary=abc").unwrap(), "abc");
        assert_eq!(
            boundary("Multipart/Mixed; charset=x; Boundary=\"a b\"").unwrap(),
            "a b"
        );
        for bad in [
            "multipart/mixed",
            "multipart/form-data; boundary=a",
            "multipart/mixed; boundary=",
            "",
            "text/plain",
        ] {
            assert_eq!(boundary(bad), None, "{bad}");
        }
        assert_eq!(
            boundary(&format!("multipart/mixed; boundary={}", "a".repeat(71))),
            None
        );
    }
}
