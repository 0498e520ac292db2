//! The web client at `/`: the one that is part of the program where it was built, or another's folder.

use std::fs;

use reqwest::{Method, StatusCode};

use crate::harness::{Engine, Server, refused};

const INDEX: &str = "<!doctype html><script src=app.js></script>";

async fn with_folder(enabled: bool) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), INDEX).unwrap();
    fs::write(folder.path().join("app.js"), "start()").unwrap();
    fs::write(folder.path().join("app.js.gz"), "packed").unwrap();
    fs::create_dir(folder.path().join("_matrix")).unwrap();
    fs::write(folder.path().join("_matrix/page.html"), "no").unwrap();
    let path = folder.path().to_owned();
    let server = Server::start_with(Engine::Memory, |config| {
        config.web_client.enabled = enabled;
        config.web_client.path = path;
    })
    .await;
    (server, folder)
}

#[tokio::test]
async fn another_clients_folder_is_served_beside_the_api() {
    let (server, _folder) = with_folder(true).await;
    let get = |path: &str| server.request(Method::GET, path);
    let page = get("/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()["content-type"], "text/html");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    assert_eq!(page.text().await.unwrap(), INDEX);
    let packed = get("/app.js").header("accept-encoding", "gzip").send();
    let packed = packed.await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    // Whatever lies in the folder, these paths are the API's.
    for path in [
        "/_matrix/page.html",
        "/nothing.js",
        "/..%2F..%2Fetc%2Fpasswd",
    ] {
        refused(get(path), 404, "M_UNRECOGNIZED").await;
    }
    let post = server.request(Method::POST, "/app.js");
    refused(post, 404, "M_UNRECOGNIZED").await;
}

#[tokio::test]
async fn without_a_web_client_there_is_nothing_at_the_root() {
    let (server, _folder) = with_folder(false).await;
    for path in ["/", "/app.js", "/index.html"] {
        refused(server.request(Method::GET, path), 404, "M_UNRECOGNIZED").await;
    }
}

/// Where the program was built without it, there is nothing to ask: the tests of `web/` need it and say so.
#[tokio::test]
async fn our_own_client_comes_compressed_with_a_strict_policy_and_is_kept() {
    let server = Server::start(Engine::Memory).await;
    let get = |path: &str| server.request(Method::GET, path);
    if server.running().app.web_client.is_none() {
        refused(get("/"), 404, "M_UNRECOGNIZED").await;
        return;
    }
    let page = get("/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()["cache-control"], "no-cache");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';"));
    assert!(!policy.contains("unsafe-inline") && !policy.contains("'unsafe-eval'"));
    let tag = page.headers()["etag"].clone();
    let again = get("/").header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let text = page.text().await.unwrap();
    let script = text.split("src=\"./").nth(1).unwrap();
    let script = format!("/{}", script.split('"').next().unwrap());
    for (taken, encoding) in [
        ("gzip, br", Some("br")),
        ("gzip, br;q=0", Some("gzip")),
        ("identity", None),
    ] {
        let answer = get(&script).header("accept-encoding", taken).send();
        let answer = answer.await.unwrap();
        let headers = answer.headers();
        assert_eq!(
            headers["cache-control"],
            "public, max-age=31536000, immutable"
        );
        assert_eq!(headers["content-type"], "text/javascript; charset=utf-8");
        let got = headers
            .get("content-encoding")
            .map(|it| it.to_str().unwrap());
        assert_eq!(got, encoding, "{taken}");
        assert!(!answer.bytes().await.unwrap().is_empty());
    }
    let secret = get("/.gitkeep");
    refused(secret, 404, "M_UNRECOGNIZED").await;
}
