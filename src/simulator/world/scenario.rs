//! Flags that a push name may carry, a convention of test suites: `restricted:NAME`, or
//! `scenario:FLAG[=V],FLAG[=V],…:NAME`. The whole text stays the display name.

/// How an account differs from an ordinary one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// Accepts messages, picture and presence requests only with a token.
    pub restricted: bool,
    /// Trusted-contact tokens are accepted.
    pub tc_tokens: bool,
    /// Tokens made from the sender's salt are accepted.
    pub cs_tokens: bool,
    pub nct_send_prop: bool,
    pub nct_syncd_prop: bool,
    pub nct_history_prop: bool,
    /// The salt comes with the first history message.
    pub nct_by_history: bool,
    /// The salt comes by app state.
    pub nct_by_app_state: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            restricted: false,
            tc_tokens: true,
            cs_tokens: true,
            nct_send_prop: false,
            nct_syncd_prop: false,
            nct_history_prop: false,
            nct_by_history: false,
            nct_by_app_state: false,
        }
    }
}

impl Scenario {
    pub fn of_name(name: &str) -> Self {
        let mut scenario = Self::default();
        if name.starts_with("restricted:") {
            scenario.restricted = true;
        }
        let Some((flags, _)) = name.strip_prefix("scenario:").and_then(|rest| rest.split_once(':')) else {
            return scenario;
        };
        for flag in flags.split(',') {
            let (key, value) = flag.split_once('=').unwrap_or((flag, "1"));
            let on = value == "1";
            match key {
                "restricted" => scenario.restricted = on,
                "tc_enabled" => scenario.tc_tokens = on,
                "cs_enabled" => scenario.cs_tokens = on,
                "nct_send_ab" => scenario.nct_send_prop = on,
                "nct_syncd_ab" => scenario.nct_syncd_prop = on,
                "nct_history_ab" => scenario.nct_history_prop = on,
                "nct_history_delivery" => scenario.nct_by_history = on,
                "nct_syncd_delivery" => scenario.nct_by_app_state = on,
                _ => {}
            }
        }
        scenario
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_carry_no_flags() {
        assert_eq!(Scenario::of_name("Alice"), Scenario::default());
        assert_eq!(Scenario::of_name("scenario:restricted"), Scenario::default());
    }

    #[test]
    fn flags_are_read() {
        assert!(Scenario::of_name("restricted:bob").restricted);
        let s = Scenario::of_name("scenario:restricted,tc_enabled=0,nct_history_delivery=1:bob");
        assert!(s.restricted && !s.tc_tokens && s.cs_tokens && s.nct_by_history && !s.nct_by_app_state);
    }
}
