//! Whether someone who registers is a person, in the judgement of a service such as reCAPTCHA.
//! <https://spec.matrix.org/v1.19/client-server-api/#google-recaptcha>

use http::{Request, Uri, header};
use serde::Deserialize;
use vatra_domain::remote::TransportError;

use crate::{config::Config, jwt::Fault, outbound::web::Web};

/// The longest answer of a puzzle that is sent on, in bytes.
const LONGEST: usize = 8 << 10;

/// The service.
pub struct Captcha {
    /// What clients show the puzzle with.
    pub(crate) site_key: String,
    secret: String,
    url: Uri,
    web: Web,
}

impl Captcha {
    /// As the settings say, which were checked; `None` if there is none.
    pub(crate) fn build(config: &Config, web: &Web) -> Option<Self> {
        let settings = &config.registration.recaptcha;
        let url = settings.verify_url.parse().ok()?;
        (!settings.site_key.is_empty()).then(|| Self {
            site_key: settings.site_key.clone(),
            secret: settings.secret.clone(),
            url,
            web: web.clone(),
        })
    }

    /// Whether an answer to the puzzle is right.
    ///
    /// # Errors
    /// If the service does not say.
    pub(crate) async fn is_right(&self, answer: &str) -> Result<bool, TransportError> {
        #[derive(Deserialize)]
        struct Judgement {
            success: bool,
        }
        if answer.is_empty() || answer.len() > LONGEST {
            return Ok(false);
        }
        let body: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("secret", &self.secret)
            .append_pair("response", answer)
            .finish();
        let request = Request::post(&self.url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.into_bytes())
            .map_err(|error| TransportError::Unresolved(error.to_string()))?;
        let told = self.web.send(request).await?;
        let judgement: Judgement = serde_json::from_slice(told.body())
            .map_err(|error| TransportError::Broken(error.to_string()))?;
        Ok(judgement.success)
    }
}

/// What makes no sense in the settings.
pub(crate) fn fault(config: &Config) -> Option<Fault> {
    let settings = &config.registration.recaptcha;
    if settings.site_key.is_empty() != settings.secret.is_empty() {
        let remedy = "set both site_key and secret, or neither".to_owned();
        return Some(("registration.recaptcha.secret", remedy));
    }
    let url = settings.verify_url.parse::<Uri>();
    let is_page = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https"));
    if url.is_ok_and(|url| is_page(&url)) {
        return None;
    }
    let remedy = "write the URL that judges answers, such as https://www.google.com/recaptcha/api/siteverify";
    Some(("registration.recaptcha.verify_url", remedy.to_owned()))
}
