//! The rules that every account starts with. <https://spec.matrix.org/v1.13/client-server-api/#predefined-rules>

use ruma::{
    UserId,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData,
        HighlightTweakValue, PatternedPushRuleInit, PushCondition, RoomMemberCountConditionData,
        RoomMemberCountIs, Ruleset, SenderNotificationPermissionConditionData, SoundTweakValue,
        Tweak,
    },
    uint,
};

/// The rules that guess mentions from the text: they do not apply to an event that says itself whom it mentions.
pub(super) const GUESSES: [&str; 3] = [CONTAINS_USER_NAME, CONTAINS_DISPLAY_NAME, ROOM_NOTIF];

const CONTAINS_USER_NAME: &str = ".m.rule.contains_user_name";
const CONTAINS_DISPLAY_NAME: &str = ".m.rule.contains_display_name";
const ROOM_NOTIF: &str = ".m.rule.roomnotif";

/// The default rules of a user, in the spec's order.
///
/// v1.17 removed the rules that guess mentions; the versions that vatra speaks (up to v1.13) have them, and without them nobody who writes
/// from a client without `m.mentions`, a bot or a bridge could call anyone's attention.
pub fn defaults(user: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user);
    insert_after(&mut rules, ".m.rule.is_user_mention", display_name());
    insert_after(&mut rules, ".m.rule.is_room_mention", whole_room());
    polls(&mut rules);
    rules.content.insert(
        PatternedPushRuleInit {
            actions: vec![notify(), sound(), highlight()],
            default: true,
            enabled: true,
            rule_id: CONTAINS_USER_NAME.to_owned(),
            pattern: user.localpart().to_owned(),
        }
        .into(),
    );
    rules
}

/// Polls, under the names that they have until they are in the specification (MSC3930): who answers one calls nobody.
fn polls(rules: &mut Ruleset) {
    let of_type = |kind: &str| {
        let kind = format!("org.matrix.msc3381.poll.{kind}");
        PushCondition::EventMatch(EventMatchConditionData::new("type".to_owned(), kind))
    };
    let id = |name: &str| format!(".org.matrix.msc3930.rule.poll_{name}");
    let answered = rule(&id("response"), vec![of_type("response")], Vec::new());
    rules.override_.insert(answered);
    for kind in ["start", "end"] {
        let two = RoomMemberCountConditionData::new(RoomMemberCountIs::from(uint!(2)));
        let among_two = vec![PushCondition::RoomMemberCount(two), of_type(kind)];
        let name = id(&format!("{kind}_one_to_one"));
        let actions = vec![notify(), sound()];
        rules.underride.insert(rule(&name, among_two, actions));
        let anywhere = rule(&id(kind), vec![of_type(kind)], vec![notify()]);
        rules.underride.insert(anywhere);
    }
}

fn insert_after(rules: &mut Ruleset, other: &str, rule: ConditionalPushRule) {
    let place = rules.override_.get_index_of(other);
    let place = place.map_or(rules.override_.len(), |index| index + 1);
    rules.override_.shift_insert(place, rule);
}

#[allow(deprecated)] // Of v1.17: see `defaults`.
fn display_name() -> ConditionalPushRule {
    let conditions = vec![PushCondition::ContainsDisplayName];
    rule(
        CONTAINS_DISPLAY_NAME,
        conditions,
        vec![notify(), sound(), highlight()],
    )
}

fn whole_room() -> ConditionalPushRule {
    let called = EventMatchConditionData::new("content.body".to_owned(), "@room".to_owned());
    let permitted = SenderNotificationPermissionConditionData::new(
        ruma::power_levels::NotificationPowerLevelsKey::Room,
    );
    let conditions = vec![
        PushCondition::EventMatch(called),
        PushCondition::SenderNotificationPermission(permitted),
    ];
    rule(ROOM_NOTIF, conditions, vec![notify(), highlight()])
}

fn rule(id: &str, conditions: Vec<PushCondition>, actions: Vec<Action>) -> ConditionalPushRule {
    ConditionalPushRuleInit {
        actions,
        default: true,
        enabled: true,
        rule_id: id.to_owned(),
        conditions,
    }
    .into()
}

fn notify() -> Action {
    Action::Notify
}

fn sound() -> Action {
    Action::SetTweak(Tweak::Sound(SoundTweakValue::Default))
}

fn highlight() -> Action {
    Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes))
}
