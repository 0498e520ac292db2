//! Push rules.
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules-api>

use http::StatusCode;
use ruma::{
    api::{
        client::push::{
            PushRule, RuleKind, delete_pushrule::v3 as delete_rule, get_pushrule::v3 as get_rule,
            get_pushrule_actions::v3 as get_actions, get_pushrule_enabled::v3 as get_enabled,
            get_pushrules_all::v3 as get_all, get_pushrules_global_scope::v3 as get_global,
            set_pushrule::v3 as set_rule, set_pushrule_actions::v3 as set_actions,
            set_pushrule_enabled::v3 as set_enabled,
        },
        error::ErrorCode,
    },
    push::{InsertPushRuleError, RemovePushRuleError, Ruleset},
};
use vatra_domain::users::Requester;

use super::super::error::Error;
use crate::wiring::App;

pub(super) async fn all(
    app: App,
    caller: Requester,
    _: get_all::Request,
) -> Result<get_all::Response, Error> {
    Ok(get_all::Response::new(
        app.users.push_rules(caller.sid).await?,
    ))
}

pub(super) async fn global(
    app: App,
    caller: Requester,
    _: get_global::Request,
) -> Result<get_global::Response, Error> {
    Ok(get_global::Response::new(
        app.users.push_rules(caller.sid).await?,
    ))
}

pub(super) async fn get(
    app: App,
    caller: Requester,
    request: get_rule::Request,
) -> Result<get_rule::Response, Error> {
    let rules = app.users.push_rules(caller.sid).await?;
    let rule = rule(&rules, request.kind, &request.rule_id)?;
    Ok(get_rule::Response::new(rule))
}

pub(super) async fn actions(
    app: App,
    caller: Requester,
    request: get_actions::Request,
) -> Result<get_actions::Response, Error> {
    let rules = app.users.push_rules(caller.sid).await?;
    let rule = rule(&rules, request.kind, &request.rule_id)?;
    Ok(get_actions::Response::new(rule.actions))
}

pub(super) async fn enabled(
    app: App,
    caller: Requester,
    request: get_enabled::Request,
) -> Result<get_enabled::Response, Error> {
    let rules = app.users.push_rules(caller.sid).await?;
    let rule = rule(&rules, request.kind, &request.rule_id)?;
    Ok(get_enabled::Response::new(rule.enabled))
}

pub(super) async fn set(
    app: App,
    caller: Requester,
    request: set_rule::Request,
) -> Result<set_rule::Response, Error> {
    let set = |rules: &mut Ruleset| {
        let (after, before) = (request.after.as_deref(), request.before.as_deref());
        rules
            .insert(request.rule.clone(), after, before)
            .map_err(|error| match error {
                InsertPushRuleError::UnknownRuleId => Error::not_found(error),
                other => Error::invalid_param(&other.to_string()),
            })
    };
    app.users.change_push_rules(caller.sid, set).await??;
    Ok(set_rule::Response::new())
}

pub(super) async fn delete(
    app: App,
    caller: Requester,
    request: delete_rule::Request,
) -> Result<delete_rule::Response, Error> {
    known_kind(&request.kind)?;
    let delete = |rules: &mut Ruleset| {
        rules
            .remove(request.kind.clone(), &request.rule_id)
            .map_err(|error| match error {
                RemovePushRuleError::NotFound => Error::not_found(error),
                other => Error::invalid_param(&other.to_string()),
            })
    };
    app.users.change_push_rules(caller.sid, delete).await??;
    Ok(delete_rule::Response::new())
}

pub(super) async fn change_actions(
    app: App,
    caller: Requester,
    request: set_actions::Request,
) -> Result<set_actions::Response, Error> {
    known_kind(&request.kind)?;
    let set = |rules: &mut Ruleset| {
        rules
            .set_actions(
                request.kind.clone(),
                &request.rule_id,
                request.actions.clone(),
            )
            .map_err(Error::not_found)
    };
    app.users.change_push_rules(caller.sid, set).await??;
    Ok(set_actions::Response::new())
}

pub(super) async fn enable(
    app: App,
    caller: Requester,
    request: set_enabled::Request,
) -> Result<set_enabled::Response, Error> {
    known_kind(&request.kind)?;
    let set = |rules: &mut Ruleset| {
        rules
            .set_enabled(request.kind.clone(), &request.rule_id, request.enabled)
            .map_err(Error::not_found)
    };
    app.users.change_push_rules(caller.sid, set).await??;
    Ok(set_enabled::Response::new())
}

fn rule(rules: &Ruleset, kind: RuleKind, id: &str) -> Result<PushRule, Error> {
    // Of a kind that there is not, there is no rule either.
    let rule = known_kind(&kind).ok().and_then(|()| rules.get(kind, id));
    rule.map(PushRule::from)
        .ok_or_else(|| Error::not_found("no such push rule"))
}

/// ruma takes any word as a kind.
fn known_kind(kind: &RuleKind) -> Result<(), Error> {
    let kinds = [
        RuleKind::Override,
        RuleKind::Underride,
        RuleKind::Sender,
        RuleKind::Room,
        RuleKind::Content,
    ];
    if kinds.contains(kind) {
        return Ok(());
    }
    Err(Error::new(
        StatusCode::BAD_REQUEST,
        ErrorCode::InvalidParam,
        "no such kind of push rule",
    ))
}
