//! Push rules: what an event means to the owner of a ruleset. Pure: no I/O and no clock.
//!
//! Called by readers of unread counts and by the followers that notify. What a rule needs to know of the room is passed in, as of the event.
//! The matching is our own: patterns come from users and texts from strangers, so neither may cost more than a
//! bounded time nor panic. To add a condition: one arm in `applies`.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

mod defaults;
pub mod glob;
mod subject;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ruma::{
    OwnedRoomId, OwnedUserId,
    events::room::power_levels::RoomPowerLevels,
    push::{
        Action, AnyPushRuleRef, ComparisonOperator, PushCondition, RoomMemberCountIs, Ruleset,
        SoundTweakValue, Tweak,
    },
};

pub use self::{defaults::defaults, subject::Subject};
use crate::event::pdu::Pdu;

/// What the rules ask about the room and the owner of the ruleset, as of the event.
#[derive(Debug, Clone)]
pub struct Context {
    /// Whose rules.
    pub user: OwnedUserId,
    /// What the user is called in the room.
    pub display_name: String,
    /// How many have joined the room.
    pub members: u64,
    /// Who may notify the whole room; `None` answers every such question with no.
    pub power: Option<Arc<RoomPowerLevels>>,
    /// The room, which rules of rooms name.
    pub room: OwnedRoomId,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The owner is notified, and the event counts as unread notification.
    pub notify: bool,
    /// It counts as a highlight too.
    pub highlight: bool,
    /// The sound to play.
    pub sound: Option<String>,
    /// The rule that decided; `None` if none applied.
    pub rule_id: Option<String>,
}

/// The actions of the first rule that applies, and that rule. One's own events notify nobody.
pub fn first_match<'a>(
    ruleset: &'a Ruleset,
    event: &Subject<'_>,
    context: &Context,
) -> Option<AnyPushRuleRef<'a>> {
    if event.pdu().sender == context.user {
        return None;
    }
    ruleset
        .iter()
        .find(|rule| rule.enabled() && rule_applies(*rule, event, context))
}

/// What a ruleset makes of an event. Who holds an event against many rulesets reads it once and calls [`evaluate_subject`].
pub fn evaluate(ruleset: &Ruleset, pdu: &Pdu, context: &Context) -> Outcome {
    evaluate_subject(ruleset, &Subject::new(pdu), context)
}

/// What a ruleset makes of an event that was read before.
pub fn evaluate_subject(ruleset: &Ruleset, event: &Subject<'_>, context: &Context) -> Outcome {
    first_match(ruleset, event, context).map_or_else(Outcome::default, outcome_of)
}

/// What a rule that applies wants to be done.
pub fn outcome_of(rule: AnyPushRuleRef<'_>) -> Outcome {
    let mut outcome = Outcome {
        rule_id: Some(rule.rule_id().to_owned()),
        ..Outcome::default()
    };
    for action in rule.actions() {
        match action {
            Action::Notify => outcome.notify = true,
            Action::SetTweak(Tweak::Sound(sound)) => outcome.sound = Some(sound_name(sound)),
            action => outcome.highlight |= action.is_highlight(),
        }
    }
    // A highlight without a notification is none.
    outcome.highlight &= outcome.notify;
    outcome
}

fn sound_name(sound: &SoundTweakValue) -> String {
    sound.as_ref().to_owned()
}

fn rule_applies(rule: AnyPushRuleRef<'_>, event: &Subject<'_>, context: &Context) -> bool {
    if event.has_mentions() && defaults::GUESSES.contains(&rule.rule_id()) {
        return false;
    }
    match rule {
        AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => rule
            .conditions
            .iter()
            .all(|condition| applies(condition, event, context)),
        AnyPushRuleRef::Content(rule) => event_match(event, "content.body", &rule.pattern),
        AnyPushRuleRef::Room(rule) => rule.rule_id == context.room,
        AnyPushRuleRef::Sender(rule) => rule.rule_id == event.pdu().sender,
    }
}

/// A condition that is not known never applies, as the spec wants.
#[allow(deprecated)] // `contains_display_name` is one of the default rules of the versions that are served.
fn applies(condition: &PushCondition, event: &Subject<'_>, context: &Context) -> bool {
    match condition {
        PushCondition::EventMatch(wanted) => event_match(event, &wanted.key, &wanted.pattern),
        PushCondition::ContainsDisplayName => contains_name(event, &context.display_name),
        PushCondition::RoomMemberCount(wanted) => count_is(&wanted.is, context.members),
        PushCondition::SenderNotificationPermission(wanted) => {
            context.power.as_ref().is_some_and(|power| {
                let needed = power.notifications.get(&wanted.key);
                needed.is_some_and(|needed| power.for_user(&event.pdu().sender) >= *needed)
            })
        }
        PushCondition::EventPropertyIs(wanted) => event.is(&wanted.key, &wanted.value),
        PushCondition::EventPropertyContains(wanted) => event.contains(&wanted.key, &wanted.value),
        _ => false,
    }
}

fn event_match(event: &Subject<'_>, key: &str, pattern: &str) -> bool {
    let Some(text) = event.text(key) else {
        return false;
    };
    if key == "content.body" {
        glob::matches_words(pattern, &text)
    } else {
        glob::matches(pattern, &text)
    }
}

/// A name is taken as it is: a star in it is a star.
fn contains_name(event: &Subject<'_>, name: &str) -> bool {
    let Some(body) = event.text("content.body") else {
        return false;
    };
    glob::contains_words(name, &body)
}

fn count_is(wanted: &RoomMemberCountIs, count: u64) -> bool {
    let bound = u64::from(wanted.count);
    match wanted.prefix {
        ComparisonOperator::Eq => count == bound,
        ComparisonOperator::Lt => count < bound,
        ComparisonOperator::Gt => count > bound,
        ComparisonOperator::Ge => count >= bound,
        ComparisonOperator::Le => count <= bound,
    }
}
