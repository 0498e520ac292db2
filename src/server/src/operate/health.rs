//! Asks the server on this machine whether it takes writes, for container engines and other supervisors without a client of their own.
//!
//! One plain request to `/health/ready` on the client listener, which never speaks TLS.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Supervisors ask every few seconds; a server that does not answer in this time is not well.
const PATIENCE: Duration = Duration::from_secs(4);
/// The answer is one short object.
const MOST_BYTES: u64 = 8 << 10;

/// The server's own words, if it is ready.
///
/// # Errors
/// A message: nobody answers, or the server is not ready and says why.
pub async fn health(listen: SocketAddr) -> Result<Vec<String>, String> {
    let address = reachable(listen);
    let answer = timeout(PATIENCE, ask(address))
        .await
        .map_err(|_| format!("no answer from {address} in {} s", PATIENCE.as_secs()))?
        .map_err(|error| format!("no answer from {address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        Ok(vec![body.to_owned()])
    } else {
        let status = head.lines().next().unwrap_or_default();
        Err(format!("{address} is not ready: {status} {body}"))
    }
}

/// Who listens on all addresses is asked on this machine's own.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8008", "127.0.0.1:8008"),
            ("[::]:8008", "[::1]:8008"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(
                reachable(listen.parse().unwrap()),
                asked.parse::<SocketAddr>().unwrap()
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_ready_is_quoted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 256];
            let _ = stream.read(&mut request).await.unwrap();
            let answer = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n{\"read_only\":\"disk full\"}";
            stream.write_all(answer).await.unwrap();
        });
        let told = health(address).await.unwrap_err();
        assert!(told.contains("503") && told.contains("disk full"), "{told}");
        server.await.unwrap();
    }
}
