//! One server, asked by HTTP: who may see the token, how long an answer may take, what a refusal means.

use std::time::Duration;

use hf_hub::Repo;
use ureq::http::uri::Scheme;
use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, Proxy, RequestBuilder};

use super::HubError;
use super::settings::Token;

/// How long a name may take to be resolved, and a connection to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a server may be silent, before an answer and within one.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// Where the hub stores large files is one redirect away, a renamed repository one more.
const MAX_REDIRECTS: usize = 8;

/// The list of a repository's files. A hundred thousand of them take about ten.
const MAX_LIST_BYTES: u64 = 64 << 20;

const USER_AGENT: &str = concat!("candle-parity/", env!("CARGO_PKG_VERSION"), "; rust; hf-hub/0.5");

/// The hub's address, and what is needed to talk to it.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Origin,
    token: Option<Token>,
}

/// Scheme, host and port: what a token is for.
#[derive(Clone, PartialEq)]
struct Origin(Scheme, String, u16);

/// What the hub says about a file before it is sent.
pub(super) struct FileInfo {
    /// The hash that names it in a cache.
    pub etag: String,
    /// Its length, if the hub says it.
    pub size: Option<u64>,
}

impl Client {
    pub fn new(endpoint: &str, token: Option<Token>, silence: Duration) -> Result<Self, HubError> {
        let given = endpoint;
        let wrong = |reason| HubError::Endpoint { endpoint: given.to_owned(), reason };
        let endpoint = given.trim_end_matches('/').to_owned();
        let uri: Uri = endpoint.parse().map_err(|_| wrong("is not a URL"))?;
        if uri.query().is_some() || endpoint.contains('#') {
            return Err(wrong("has more than a path"));
        }
        let origin = Origin::of(&uri).ok_or_else(|| wrong("does not begin with http:// or https://"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("has a name and a password in it"));
        }
        if let Some(token) = &token
            && !token.secret.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(HubError::MalformedToken { origin: token.origin.clone() });
        }
        // A server on this machine is not behind a proxy.
        let proxy = if origin.is_loopback() { None } else { Proxy::try_from_env() };
        let config = Agent::config_builder()
            .user_agent(USER_AGENT)
            // Lengths and ranges are those of the file itself only where nothing is compressed.
            .accept_encoding("identity")
            // Statuses and redirects are answers here: what they mean depends on who gives them.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(silence))
            .timeout_per_read(Some(silence));
        Ok(Self { agent: config.build().into(), endpoint, origin, token })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What the hub says of a repository at a revision: JSON.
    pub fn repository(&self, repo: &Repo, model: &str) -> Result<Vec<u8>, HubError> {
        let url = format!("{}/api/{}", self.endpoint, repo.api_url());
        let (url, mut response) = self.follow(&url, |_| true, |url| self.send(self.agent.get(url), url))?;
        self.accept(&url, &response, repo, model)?;
        response
            .body_mut()
            .with_config()
            .limit(MAX_LIST_BYTES)
            .read_to_vec()
            .map_err(|source| HubError::Unreachable { host: host_of(&url), source: Box::new(source) })
    }

    /// What the hub itself says of a file, wherever the file lies.
    pub fn file_info(&self, url: &str, repo: &Repo, model: &str) -> Result<FileInfo, HubError> {
        let ask = |url: &str| self.send(self.agent.head(url), url);
        let (url, response) = self.follow(url, |next| self.is_own(next), ask)?;
        if !response.status().is_redirection() {
            self.accept(&url, &response, repo, model)?;
        }
        let headers = response.headers();
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
        let size = text(headers, "x-linked-size").or_else(|| {
            // That of a redirect is the length of its own text.
            text(headers, "content-length").filter(|_| response.status().is_success())
        });
        Ok(FileInfo {
            etag: etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned()).ok_or_else(
                || HubError::Answer { url: shown(&url).to_owned(), reason: "there is no ETag".into() },
            )?,
            size: size.and_then(|size| size.parse().ok()),
        })
    }

    /// A file's bytes, from that byte on if the server can.
    pub fn file(&self, url: &str, from: u64, repo: &Repo, model: &str) -> Result<Response<Body>, HubError> {
        let ask = |url: &str| match from {
            0 => self.send(self.agent.get(url), url),
            _ => self.send(self.agent.get(url).header(header::RANGE, format!("bytes={from}-")), url),
        };
        let (url, response) = self.follow(url, |_| true, ask)?;
        // A partial file that is whole already, or was of another length: the caller begins anew.
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            self.accept(&url, &response, repo, model)?;
        }
        Ok(response)
    }

    fn send(&self, request: RequestBuilder<WithoutBody>, url: &str) -> Result<Response<Body>, ureq::Error> {
        match self.token_for(url) {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {}", token.secret)).call(),
            None => request.call(),
        }
    }

    /// Asks, and asks again where a redirect leads, if `may_follow` it. Gives the last URL and its answer.
    fn follow(
        &self,
        url: &str,
        may_follow: impl Fn(&str) -> bool,
        ask: impl Fn(&str) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<(String, Response<Body>), HubError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = ask(&url)
                .map_err(|source| HubError::Unreachable { host: host_of(&url), source: Box::new(source) })?;
            let next = match text(response.headers(), "location") {
                Some(location) if response.status().is_redirection() => redirected(&url, location)?,
                _ => return Ok((url, response)),
            };
            if !may_follow(&next) {
                return Ok((url, response));
            }
            url = next;
        }
        Err(HubError::Answer {
            url: shown(&url).to_owned(),
            reason: format!("there are more than {MAX_REDIRECTS} redirects"),
        })
    }

    /// The token, for the endpoint alone: a redirect leads to storage that has no business with it.
    fn token_for(&self, url: &str) -> Option<&Token> {
        self.token.as_ref().filter(|_| self.is_own(url))
    }

    fn is_own(&self, url: &str) -> bool {
        url.parse().ok().and_then(|uri| Origin::of(&uri)).is_some_and(|origin| origin == self.origin)
    }

    /// An error, unless the answer is what was asked for.
    fn accept(&self, url: &str, response: &Response<Body>, repo: &Repo, model: &str) -> Result<(), HubError> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let said = text(response.headers(), "x-error-message").unwrap_or_default();
        let code = text(response.headers(), "x-error-code").unwrap_or_default();
        let (name, endpoint) = (repo.url(), self.endpoint.clone());
        let log_in = "log in with `hf auth login`, or set HF_TOKEN";
        let cure = |with_token| if self.token.is_some() { with_token } else { log_in };
        Err(match (code, status) {
            _ if !self.is_own(url) => refused(url, status, said),
            ("GatedRepo", _) => {
                HubError::Gated { name, endpoint, cure: cure("use a token of the account that was let in") }
            }
            ("RevisionNotFound", _) => {
                HubError::NoRevision { name, revision: repo.revision().to_owned(), endpoint }
            }
            ("EntryNotFound", _) => refused(url, status, said),
            (_, StatusCode::UNAUTHORIZED) if said.contains("Invalid credentials") => match &self.token {
                Some(token) => HubError::BadToken { endpoint, origin: token.origin.clone() },
                None => refused(url, status, said),
            },
            // The hub does not tell a private model from none.
            ("RepoNotFound", _) | (_, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) => {
                let cure = cure("the token that was sent may not see it");
                HubError::NoModel { model: model.to_owned(), name, endpoint, cure }
            }
            _ => refused(url, status, said),
        })
    }
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme()?.clone();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?;
        Some(Self(scheme, host.to_ascii_lowercase(), uri.port_u16().unwrap_or(default)))
    }

    fn is_loopback(&self) -> bool {
        let host = self.1.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }
}

/// Where a redirect leads. From https there is no way back to http.
fn redirected(url: &str, location: &str) -> Result<String, HubError> {
    let wrong = || HubError::Answer {
        url: shown(url).to_owned(),
        reason: format!("it redirects to '{}'", shown(location)),
    };
    let from: Uri = url.parse().map_err(|_| wrong())?;
    let (scheme, authority) = from.scheme_str().zip(from.authority()).ok_or_else(wrong)?;
    let next = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    };
    let to = next.parse().ok().and_then(|uri| Origin::of(&uri)).ok_or_else(wrong)?;
    if scheme == "https" && to.0 != Scheme::HTTPS { Err(wrong()) } else { Ok(next) }
}

fn refused(url: &str, status: StatusCode, said: &str) -> HubError {
    let url = shown(url).to_owned();
    let reason = match said {
        "" => status.canonical_reason().map(|reason| format!(" ({reason})")).unwrap_or_default(),
        said => format!(": {said}"),
    };
    let cure = match status.as_u16() {
        429 => ": too many requests; wait a while, or log in with `hf auth login` for more",
        500.. => ": the fault is the server's; try again later",
        _ => "",
    };
    HubError::Refused { url, status: status.as_u16(), said: reason + cure }
}

/// A URL, as errors show it: what follows a question mark on a storage server is a key to the file.
fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

fn host_of(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    uri.as_ref().and_then(Uri::authority).map_or_else(|| shown(url).to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> Result<Client, HubError> {
        let token = Token { secret: "secret".into(), origin: "of a test".into() };
        Client::new(endpoint, Some(token), SILENCE)
    }

    #[test]
    fn the_token_is_for_scheme_host_and_port_of_the_endpoint() {
        let client = client("https://Hub.example/mirror/").unwrap();
        assert_eq!(client.endpoint(), "https://Hub.example/mirror");
        for (url, is_sent) in [
            ("https://hub.example/other", true),
            ("https://hub.example:443/x", true),
            ("https://hub.example:8443/x", false),
            ("http://hub.example/x", false),
            ("https://cdn.hub.example/x", false),
            ("https://hub.example.evil/x", false),
            ("https://hub.example@evil/x", false),
            ("not a url", false),
        ] {
            assert_eq!(client.token_for(url).is_some(), is_sent, "{url}");
        }
    }

    #[test]
    fn a_redirect_is_absolute_or_of_the_same_server_and_never_less_safe() {
        for (location, expected) in [
            ("https://cdn/x?y", Some("https://cdn/x?y")),
            ("/x/y", Some("https://hub:8443/x/y")),
            ("//cdn/x", Some("https://cdn/x")),
            ("http://cdn/x", None),
            ("file:///etc/passwd", None),
            ("x/y", None),
            ("", None),
        ] {
            let next = redirected("https://hub:8443/a/b", location);
            assert_eq!(next.ok().as_deref(), expected, "{location}");
        }
        assert_eq!(redirected("http://hub/a", "http://cdn/x").unwrap(), "http://cdn/x");
        let error =
            redirected("https://cdn/a?key=secret", "http://cdn/x?key=secret").unwrap_err().to_string();
        assert!(error.contains("https://cdn/a ") && error.contains("'http://cdn/x'"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn an_endpoint_is_a_servers_address() {
        for endpoint in [
            "",
            "hub",
            "ftp://hub",
            "https://",
            "https://hub/?x",
            "https://hub/#x",
            "https://me@hub",
            "ht tp://x",
        ] {
            assert!(matches!(client(endpoint), Err(HubError::Endpoint { .. })), "{endpoint}");
        }
        for (endpoint, is_loopback) in [
            ("http://127.0.0.1:9", true),
            ("http://[::1]:9", true),
            ("http://localhost", true),
            ("https://hub", false),
        ] {
            assert_eq!(client(endpoint).unwrap().origin.is_loopback(), is_loopback, "{endpoint}");
        }
    }
}
