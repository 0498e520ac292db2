//! The way to pages that people speak of, for previews of their URLs: the word of strangers, so that the rules on addresses are those for other
//! servers. Unlike there plain HTTP is spoken too. Nothing is sent that says for whom.

use async_trait::async_trait;
use http::{Response, Uri, header};
use vatra_domain::{
    remote::{ByteStream, TransportError},
    url_preview::Web,
};

use super::{dial::Dialer, once};

/// Sites show what previews want to programs that say what they are.
const USER_AGENT: &str = concat!(
    "vatra/",
    env!("CARGO_PKG_VERSION"),
    " (bot; previews for Matrix)"
);

/// The real web.
pub(crate) struct Pages {
    dialer: Dialer,
}

impl Pages {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }
}

#[async_trait]
impl Web for Pages {
    async fn get(
        &self,
        url: &Uri,
        accept: &'static str,
    ) -> Result<Response<ByteStream>, TransportError> {
        let headers = [
            (header::USER_AGENT, USER_AGENT),
            (header::ACCEPT, accept),
            (header::ACCEPT_ENCODING, "identity"),
        ];
        once::get_page(&self.dialer, url, &headers).await
    }
}
