//! The states of an instance and the machine-readable causes behind them.

use serde::{Deserialize, Serialize};

macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word used in JSON, in the store and in metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::ids::IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(crate::ids::IdError { what: stringify!($name), rule: concat!("one of: ", $($word, " ",)+) }),
                }
            }
        }
    };
}
pub(crate) use word_enum;

word_enum!(
    /// What the gateway knows of an instance's link to WhatsApp. `connected` means logged in and able to send.
    InstanceStatus {
        /// No socket and none wanted, or waiting for an operator.
        Disconnected = "disconnected",
        /// A socket is being opened, or a reconnect is due.
        Connecting = "connecting",
        /// Waiting for a phone to scan the QR code or for the pair code to be entered.
        Pairing = "pairing",
        Connected = "connected",
        /// The phone or WhatsApp removed this device; pairing again is needed.
        LoggedOut = "logged_out",
        /// Stopped for good until an operator connects again (banned, replaced, outdated).
        Failed = "failed",
    }
);

word_enum!(
    /// Why an instance is in its status.
    Cause {
        /// `POST …/disconnect`.
        Requested = "requested",
        /// Never paired.
        NotPaired = "not-paired",
        /// No code was scanned before the last one expired.
        PairingTimeout = "pairing-timeout",
        PairingFailed = "pairing-failed",
        /// Unlinked from the phone, or WhatsApp answered 401.
        DeviceRemoved = "device-removed",
        /// `POST …/logout`.
        LogoutRequested = "logout-requested",
        /// Another client took over this device's connection.
        Replaced = "replaced",
        /// WhatsApp banned the account for a time.
        TemporaryBan = "temporary-ban",
        /// WhatsApp locked the account (403).
        AccountLocked = "account-locked",
        /// WhatsApp refuses the announced client version (405); see `whatsapp.version`.
        ClientOutdated = "client-outdated",
        /// The connection ended and a reconnect is due.
        ConnectionLost = "connection-lost",
        /// No connection could be opened.
        Unreachable = "unreachable",
        /// The server's certificate chain did not verify.
        CertificateRefused = "certificate-refused",
        /// The database refused a write; the session is rebuilt from what is stored.
        StorageFailed = "storage-failed",
        /// The gateway is stopping or starting.
        Restart = "restart",
        /// WhatsApp refused the connection for another reason.
        Refused = "refused",
    }
);

impl Cause {
    /// Whether the gateway reconnects by itself after this cause.
    pub const fn reconnects(self) -> bool {
        matches!(self, Self::ConnectionLost | Self::Unreachable | Self::StorageFailed | Self::Restart)
    }

    /// What an operator reads.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Requested => "Disconnected on request; the credentials are kept.",
            Self::NotPaired => "Not paired yet; connect and scan the QR code or enter the pair code.",
            Self::PairingTimeout => "No code was scanned in time; connect again for fresh codes.",
            Self::PairingFailed => "Pairing failed; connect again for fresh codes.",
            Self::DeviceRemoved => "The device was unlinked from the phone; connect and pair again.",
            Self::LogoutRequested => "Logged out on request; connect and pair again.",
            Self::Replaced => "Another client took over this device's connection; stop it, then connect again.",
            Self::TemporaryBan => "WhatsApp banned the account for a time; connect again when it is lifted.",
            Self::AccountLocked => "WhatsApp locked the account; open WhatsApp on the phone.",
            Self::ClientOutdated => {
                "WhatsApp refuses the announced client version; set whatsapp.version to a current one."
            }
            Self::ConnectionLost => "The connection was lost; reconnecting.",
            Self::Unreachable => "WhatsApp could not be reached; trying again.",
            Self::CertificateRefused => {
                "The server's certificate chain did not verify; this is not WhatsApp, or somebody listens in."
            }
            Self::StorageFailed => "The database refused a write; the session is being rebuilt from what is stored.",
            Self::Restart => "The gateway restarted; reconnecting.",
            Self::Refused => "WhatsApp refused the connection.",
        }
    }
}
