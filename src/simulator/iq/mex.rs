//! `w:mex`: GraphQL by number. Newsletters and the tree of a community's groups.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Answer, Query};
use crate::node::{attr, bytes, holding_bytes, now, required};
use crate::session::Caller;
use crate::world::group::Group;
use crate::world::lock;
use crate::world::newsletter::Newsletter;

/// What a query asks for. Each has several numbers, as clients are of several ages.
#[derive(Clone, Copy)]
enum Ask {
    Create,
    Subscribed,
    Fetch,
    Join,
    Leave,
    Mute,
    Unmute,
    UserSetting,
    Update,
    Delete,
    Recommended,
    Subgroups,
}

fn ask(query_id: &str) -> Option<Ask> {
    Some(match query_id {
        "25149874324715067" | "8823471724422422" | "6234210096708695" | "27527996220149684" => Ask::Create,
        "25399611239711790" | "6388546374527196" | "8621797084555037" => Ask::Subscribed,
        "27456920720571478" | "26944199458535748" => Ask::Fetch,
        "6563316087068696" | "7272540469429201" | "9779843322044422" => Ask::Fetch,
        "24404358912487870" | "9926858900719341" => Ask::Join,
        "9767147403369991" | "6392786840836363" | "8782612271820087" => Ask::Leave,
        "29766401636284406" | "6274038279359549" | "5971669009605755" => Ask::Mute,
        "9864994326891137" | "6068417879924485" | "6104029483058502" => Ask::Unmute,
        "31938993655691868" => Ask::UserSetting,
        "24250201037901610" | "7150902998257522" | "7839742399440946" => Ask::Update,
        "30062808666639665" => Ask::Delete,
        "25806748772361516" | "7263823273662354" | "27256776790637714" => Ask::Recommended,
        "9935467776504344" | "24079399904996141" => Ask::Subgroups,
        _ => return None,
    })
}

pub(crate) fn answer(caller: &Caller, query: &Query<'_>) -> Result<Answer> {
    let request = query.child.context("no <query>")?;
    let query_id = required(request, "query_id")?;
    let given: Value = serde_json::from_slice(&bytes(request)).unwrap_or(Value::Null);
    let variables = given.get("variables").unwrap_or(&Value::Null);
    let data = match ask(&query_id) {
        Some(asked) => data(caller, asked, variables),
        None => {
            tracing::debug!(op = attr(request, "op_name"), "empty data for GraphQL query {query_id}");
            json!({})
        }
    };
    let body = serde_json::to_vec(&json!({"data": data}))?;
    Ok(Answer::one(holding_bytes("result", body)))
}

/// The text at a path; empty when there is none.
fn text<'a>(variables: &'a Value, path: &str) -> &'a str {
    variables.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn user(jid: &str) -> &str {
    jid.split('@').next().unwrap_or_default()
}

fn data(caller: &Caller, asked: Ask, v: &Value) -> Value {
    let me = caller.account.phone.as_str();
    if matches!(asked, Ask::Subgroups) {
        return subgroups(caller, v);
    }
    let mut newsletters = lock(&caller.world.newsletters);
    let id = user(text(v, "/newsletter_id")).to_owned();
    match asked {
        Ask::Create => {
            let input = v.get("input").or_else(|| v.get("newsletter_input")).unwrap_or(&Value::Null);
            let given = |key: &str| input.get(key).and_then(Value::as_str).unwrap_or_default();
            let id = format!("1204{:014}", caller.world.next() + now() * 1000);
            let newsletter = Newsletter {
                id: id.clone(),
                name: given("name").to_owned(),
                description: given("description").to_owned(),
                invite: format!("NL{id}"),
                owner: me.to_owned(),
                subscribers: [me.to_owned()].into(),
                muted: Default::default(),
                created: now(),
                posts: Vec::new(),
            };
            let made = newsletter.to_json(me);
            newsletters.insert(id, newsletter);
            json!({"xwa2_newsletter_create": made})
        }
        Ask::Subscribed => {
            let mine: Vec<Value> =
                newsletters.values().filter(|n| n.subscribers.contains(me)).map(|n| n.to_json(me)).collect();
            json!({"xwa2_newsletter_subscribed": mine})
        }
        Ask::Fetch => {
            let key = text(v, "/input/key");
            let by_invite = text(v, "/input/type").eq_ignore_ascii_case("invite");
            let found = newsletters.values().find(|n| if by_invite { n.invite == key } else { n.id == user(key) });
            json!({"xwa2_newsletter": found.map(|n| n.to_json(me))})
        }
        Ask::Join => {
            let joined = newsletters.get_mut(&id).map(|n| {
                n.subscribers.insert(me.to_owned());
                n.to_json(me)
            });
            json!({"xwa2_newsletter_join_v2": joined.clone(), "xwa2_newsletter_follow": joined})
        }
        Ask::Leave => {
            let left = newsletters.get_mut(&id).map(|n| {
                n.subscribers.remove(me);
                json!({"id": n.jid().to_string()})
            });
            json!({"xwa2_newsletter_leave_v2": left.clone(), "xwa2_newsletter_unfollow": left})
        }
        Ask::Mute | Ask::Unmute | Ask::UserSetting => {
            let wanted = v.to_string();
            let mute = match asked {
                Ask::Mute => true,
                Ask::Unmute => false,
                _ => wanted.contains("\"ON\""),
            };
            let id = if id.is_empty() { user(text(v, "/input/newsletter_id")).to_owned() } else { id };
            let set = newsletters.get_mut(&id).map(|n| {
                if mute {
                    n.muted.insert(me.to_owned())
                } else {
                    n.muted.remove(me)
                };
                n.to_json(me)
            });
            json!({
                "xwa2_newsletter_update_user_setting": set.clone(),
                "xwa2_newsletter_mute_v2": set.clone(),
                "xwa2_newsletter_unmute_v2": set,
            })
        }
        Ask::Update => {
            let updated = newsletters.get_mut(&id).filter(|n| n.owner == me).map(|n| {
                if let Some(name) = v.pointer("/updates/name").and_then(Value::as_str) {
                    n.name = name.to_owned();
                }
                if let Some(description) = v.pointer("/updates/description").and_then(Value::as_str) {
                    n.description = description.to_owned();
                }
                n.to_json(me)
            });
            json!({"xwa2_newsletter_update": updated})
        }
        Ask::Delete => {
            let owned = newsletters.get(&id).is_some_and(|n| n.owner == me);
            let deleted = owned.then(|| newsletters.remove(&id)).flatten();
            json!({"xwa2_newsletter_delete_v2": deleted.map(|n| json!({"id": n.jid().to_string()}))})
        }
        Ask::Recommended => {
            let all: Vec<Value> = newsletters.values().map(|n| n.to_json(me)).collect();
            json!({"xwa2_newsletters_recommended": {"result": all, "page_info": {"hasNextPage": false}}})
        }
        Ask::Subgroups => Value::Null,
    }
}

/// A community's groups: the default one, and the others.
fn subgroups(caller: &Caller, v: &Value) -> Value {
    let asked = Some(text(v, "/group_id")).filter(|id| !id.is_empty()).unwrap_or(text(v, "/input/group_jid"));
    let id = user(asked);
    let groups = lock(&caller.world.groups);
    let node = |g: &Group| {
        json!({
            "id": g.jid().to_string(),
            "subject": {"value": g.subject, "creation_time": g.created.to_string()},
            "creation_time": g.created.to_string(),
            "total_participants_count": g.members.len(),
            "properties": {"general_chat": g.general_chat},
        })
    };
    let linked = || groups.values().filter(|g| g.linked_parent.as_deref() == Some(id));
    let default = linked().find(|g| g.default_subgroup).map(node);
    let edges: Vec<Value> = linked().filter(|g| !g.default_subgroup).map(|g| json!({"node": node(g)})).collect();
    json!({"xwa2_group_query_by_id": {
        "id": format!("{id}@g.us"),
        "default_sub_group": default,
        "sub_groups": {"edges": edges},
    }})
}
