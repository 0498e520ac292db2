//! Health and metrics.

use std::fmt::Write;

use axum::{Json, Router, extract::State, routing::get};
use http::StatusCode;
use serde_json::{Value, json};

use crate::wiring::App;

/// `/health/live` (the process answers) and `/health/ready` (the store takes writes, and the media folder files).
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/health", get(ready))
}

/// `/metrics`, in the text form of Prometheus.
pub(crate) fn metrics() -> Router<App> {
    Router::new().route("/metrics", get(page))
}

async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let (health, media) = (app.store.health(), app.media.trouble().await);
    let ready = health.is_writable() && media.is_none();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ready": ready, "read_only": health.read_only, "media": media, "reopens": health.reopens,
    });
    (status, Json(body))
}

async fn page(State(app): State<App>) -> String {
    let media = app.media.trouble().await;
    let mut page = String::new();
    let mut line = |name: &str, labels: &str, value: u64| {
        // A String takes every write.
        let _ = writeln!(page, "vatra_{name}{labels} {value}");
    };
    line("requests_started_total", "", app.counts.started());
    for (class, count) in app.counts.finished() {
        line(
            "requests_finished_total",
            &format!("{{status=\"{class}xx\"}}"),
            count,
        );
    }
    line(
        "requests_duration_microseconds_total",
        "",
        app.counts.micros(),
    );
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    line("syncs_waiting", "", app.syncs.waiting());
    line("users_active", "", number(app.waiters.active_users()));
    let cached = app.rooms.cached();
    line("cache_events_bytes", "", cached.events);
    line("cache_state_bytes", "", cached.state);
    line("cache_rooms", "", number(cached.heads));
    let stats = app.store.stats();
    line("commit_groups_total", "", stats.groups);
    line("commit_batches_total", "", stats.batches);
    line("commit_assert_failures_total", "", stats.assert_failures);
    line("commit_engine_failures_total", "", stats.engine_failures);
    line("commit_queued", "", stats.queued);
    line("store_memtable_bytes", "", stats.engine.memtable_bytes);
    line(
        "store_block_cache_bytes",
        "",
        stats.engine.block_cache_bytes,
    );
    line("store_disk_bytes", "", stats.engine.disk_bytes);
    line("store_rows", "", stats.engine.rows);
    let watermark = app.store.watermark();
    for follower in &app.followers {
        let labels = format!("{{follower=\"{}\"}}", follower.name);
        line("follower_lag", &labels, follower.lag(watermark));
        line("follower_set_aside", &labels, follower.set_aside());
        line(
            "follower_failing",
            &labels,
            u64::from(follower.error().is_some()),
        );
    }
    if let Some(retention) = &app.retention {
        line("retention_emptied_total", "", retention.emptied());
    }
    let push = app.push_sender.figures();
    line("push_sent_total", "", push.sent);
    line("push_failed_total", "", push.failed);
    line("push_rejected_total", "", push.rejected);
    line("push_waiting", "", push.waiting);
    if let Some(mail) = &app.mail {
        let counts = mail.mailer.counts();
        line("mail_queued_total", "", counts.queued());
        line("mail_sent_total", "", counts.sent());
        line("mail_failed_total", "", counts.failed());
        line("mail_put_off_total", "", counts.put_off());
        if let Some(sender) = &app.mail_sender {
            let figures = sender.figures();
            line("away_mail_sent_total", "", figures.sent);
            line("away_mail_failed_total", "", figures.failed);
            line("away_mail_pushers_ended_total", "", figures.ended);
            line("away_mail_waiting", "", figures.waiting);
        }
        // Without a store there is no figure, and the store's own say why.
        if let Ok(lag) = mail.mailer.lag_ms().await {
            line("mail_lag_seconds", "", lag / 1_000);
        }
    }
    line(
        "store_writable",
        "",
        u64::from(app.store.health().is_writable()),
    );
    line("media_writable", "", u64::from(media.is_none()));
    page
}
