//! What a request asks for, whether it may be asked, and the response.
//!
//! A web page that somebody has open must not read what this server has, although the browser can
//! reach it. So requests that a browser marks as another site's are refused, and so are those for a
//! host of another name: with that name a site could pass for this server (DNS rebinding). No other
//! site can show an answer in a frame.

use anyhow::{Context, Result};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use lsbuf::render::{MetricsFormat, PageOrigin, page_policy};

use super::scans::{Form, NoAnswer, Scans};

/// The whole body of a response.
pub(super) type Body = http_body_util::Full<Bytes>;

/// What the server has.
#[derive(Debug)]
pub(super) struct Site {
    scans: Scans,
    hosts: Hosts,
    /// The page for people, without data: it fetches them.
    page: Bytes,
    /// What a browser may do with an answer.
    policy: HeaderValue,
}

/// Names of hosts that this server may be asked by, beside localhost and addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    pub(super) fn new(names: &[String]) -> Hosts {
        Hosts(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether a request for that host, perhaps with a port, may be answered. A name could be one
    /// that another site has made for this server's address; an address cannot.
    fn has(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
            _ => host,
        };
        let name = name.to_ascii_lowercase();
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        name == "localhost" || address.parse::<std::net::IpAddr>().is_ok() || self.0.contains(&name)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Home,
    Health,
    Scan(Form),
}

/// Why a request is refused: the status, and a line that says why.
type Refusal = (StatusCode, String);

impl Site {
    pub(super) fn new(scans: Scans, hosts: Hosts) -> Result<Site> {
        let mut page = Vec::new();
        lsbuf::render::page(&mut page, None, PageOrigin::Server).context("the page cannot be written")?;
        let policy = format!("{}; frame-ancestors 'none'", page_policy(PageOrigin::Server));
        let policy = HeaderValue::from_str(&policy).context("the policy is no header")?;
        Ok(Site { scans, hosts, page: page.into(), policy })
    }

    /// The response to a request. `is_net`: it came over the network, not over a Unix socket.
    pub(super) async fn answer<B>(&self, request: &Request<B>, is_net: bool) -> Response<Body> {
        let asked = asked(request.method(), request.uri().path(), request.headers());
        let may = if is_net { self.may_ask(request) } else { Ok(()) };
        let mut response = match may.and(asked) {
            Err((status, why)) => text(status, why),
            Ok(Asked::Health) => text(StatusCode::OK, "ok".to_owned()),
            Ok(Asked::Home) => typed(StatusCode::OK, "text/html; charset=utf-8", self.page.clone()),
            Ok(Asked::Scan(form)) => match self.scans.ask(form.clone()).await {
                Ok(bytes) => typed(StatusCode::OK, media_type(&form), bytes),
                Err(NoAnswer::NotFound) => text(StatusCode::NOT_FOUND, "no such buffer".to_owned()),
                Err(NoAnswer::Failed(why)) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
        };
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        for (name, value) in PROTECTING {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn may_ask<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let headers = request.headers();
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().unwrap_or_default(),
            // HTTP/1.0 has none.
            (None, _) if request.version() < hyper::Version::HTTP_11 => "localhost",
            _ => return Err((StatusCode::BAD_REQUEST, "a request names one host".to_owned())),
        };
        if !self.hosts.has(host) {
            let why = "this is no name of this server; --allow-host makes it one, an address always is";
            return Err((StatusCode::FORBIDDEN, why.to_owned()));
        }
        let of_page = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_other_site = matches!(of_page("sec-fetch-site"), Some("cross-site" | "same-site"));
        let is_navigation = of_page("sec-fetch-mode") == Some("navigate");
        let is_other_origin = headers
            .get(header::ORIGIN)
            .is_some_and(|origin| origin.as_bytes() != format!("http://{host}").as_bytes());
        if is_other_origin || is_other_site && !is_navigation {
            return Err((StatusCode::FORBIDDEN, "pages of other sites may not read this".to_owned()));
        }
        Ok(())
    }
}

/// What keeps other sites out, and answers out of caches.
const PROTECTING: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

fn asked(method: &Method, path: &str, headers: &HeaderMap) -> Result<Asked, Refusal> {
    let found = match path {
        "/" => Asked::Home,
        "/healthz" => Asked::Health,
        "/metrics" => Asked::Scan(Form::Metrics(accepted(headers))),
        "/snapshot.json" => Asked::Scan(Form::Snapshot),
        _ => match path.strip_prefix("/buffer/").filter(|id| is_identity(id)) {
            Some(id) => Asked::Scan(Form::Buffer(id.to_owned())),
            None => {
                let valid = "no such page; valid: /, /metrics, /snapshot.json, /buffer/KIND:INO, /healthz";
                return Err((StatusCode::NOT_FOUND, valid.to_owned()));
            }
        },
    };
    if method != Method::GET && method != Method::HEAD {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "valid: GET, HEAD".to_owned()));
    }
    Ok(found)
}

/// Whether a text can be `KIND:INO`.
fn is_identity(text: &str) -> bool {
    let Some((kind, ino)) = text.split_once(':') else { return false };
    let is_kind = kind.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-'));
    is_kind && !kind.is_empty() && ino.parse::<u64>().is_ok()
}

/// The form of metrics that a scraper prefers. Of two that it likes equally, the older one, which
/// all of them take.
fn accepted(headers: &HeaderMap) -> MetricsFormat {
    let (mut text, mut open) = (0.0, 0.0);
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0_f64);
            match media {
                "application/openmetrics-text" => open = quality.max(open),
                "text/plain" | "text/*" | "*/*" => text = quality.max(text),
                _ => {}
            }
        }
    }
    if open > text { MetricsFormat::OpenMetrics } else { MetricsFormat::Text }
}

fn media_type(form: &Form) -> &'static str {
    match form {
        Form::Metrics(format) => format.media_type(),
        Form::Snapshot | Form::Buffer(_) => "application/json",
    }
}

/// A response of one line, or a few.
fn text(status: StatusCode, line: String) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", format!("{line}\n").into())
}

fn typed(status: StatusCode, media_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    /// Check which hosts this server has: itself by any address, and the names that it was given.
    #[test]
    fn hosts() {
        let hosts = Hosts::new(&["Node7.example".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:9747",
            "127.0.0.1:9747",
            "10.1.2.3",
            "[::1]:9747",
            "[::1]",
            "node7.example:1",
        ] {
            assert!(hosts.has(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:9747",
            "127.0.0.1.evil.example",
            "node7.example.",
            ":1",
        ] {
            assert!(!hosts.has(host), "{host}");
        }
    }

    /// Check what paths ask for, and that no other text reaches a scan.
    #[test]
    fn paths() {
        let asked = |path: &str| asked(&Method::GET, path, &HeaderMap::new());
        let form = |form| Ok(Asked::Scan(form));
        assert_eq!(asked("/snapshot.json"), form(Form::Snapshot));
        assert_eq!(asked("/buffer/dmabuf:17"), form(Form::Buffer("dmabuf:17".to_owned())));
        for path in [
            "",
            "//",
            "/metrics/",
            "/../etc/passwd",
            "/buffer/",
            "/buffer/17",
            "/buffer/dmabuf:x",
            "/buffer/a b:1",
            "/buffer/..:1",
        ] {
            assert_eq!(asked(path).map_err(|(status, _)| status), Err(StatusCode::NOT_FOUND), "{path}");
        }
    }

    /// Check that only reading is possible.
    #[test]
    fn methods() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
            let refused = asked(&method, "/metrics", &HeaderMap::new());
            assert_eq!(
                refused.map_err(|(status, _)| status),
                Err(StatusCode::METHOD_NOT_ALLOWED),
                "{method}"
            );
        }
    }

    /// Check which form each scraper gets: Prometheus prefers OpenMetrics, VictoriaMetrics the
    /// older text, and others say nothing.
    #[test]
    fn forms() {
        let of = |accept| accepted(&headers(&[("accept", accept)]));
        let prometheus = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(of(prometheus), MetricsFormat::OpenMetrics);
        assert_eq!(of("text/plain;version=0.0.4;q=1,*/*;q=0.1"), MetricsFormat::Text);
        assert_eq!(of("*/*"), MetricsFormat::Text);
        assert_eq!(of("application/openmetrics-text;q=0"), MetricsFormat::Text);
        assert_eq!(accepted(&HeaderMap::new()), MetricsFormat::Text);
    }
}
