//! Builds every part bottom-up and hands each what it needs. If it could not be built in this order, the design would be wrong.
//!
//! There is no global: two servers can run in one process.

mod blobs;
mod key;
mod networks;

use std::{sync::Arc, time::Duration};

use ruma::{OwnedServerName, ServerName};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vatra_domain::{
    appservice::line::Asking,
    clock::{SharedClock, SystemClock},
    e2ee::E2ee,
    federation::{Federation, devices::Devices, edus::Edus, transaction::Transactions},
    flows::{
        self,
        keys::UserKeys,
        received::Receiving,
        server_notices::{ServerNotices, Voice},
    },
    followers::{
        self, Follower,
        appservice_sender::{self, AppserviceSender},
        federation_sender::{self, FederationSender},
        guests::Guests,
        key_news::KeyNews,
        mail_sender::MailSender,
        media_shown::MediaShown,
        notices::Notices,
        push_sender::{self, PushSender},
        retention::{self, Retention},
        search_indexer,
    },
    ids::Ids,
    mail::templates::Templates,
    media::{BlobError, Media, Settings as MediaSettings},
    random::{SharedRandom, SystemRandom},
    remote::{self, Keys, Remote},
    rooms::{CacheSizes, Rooms, ephemeral::Ephemeral, receive::Receiver, unread::Unreads},
    schema,
    search::Search,
    sync::{Providers, Syncs, Waiters},
    url_preview::{self, UrlPreviews},
    users::{
        Users, UsersError,
        server_name::{self, NameError},
    },
};
use vatra_store::{Engine, Options, Store};

pub(crate) use self::blobs::{bucket, folder};
use self::{
    blobs::blobs,
    key::signing_key,
    networks::{gateways, network, own_web, pages as web_pages, service_line, sso_web},
};
use crate::{
    captcha::Captcha,
    config::{self, Config, Durability},
    http::{address::Proxies, counts::Counts, limits::Rates},
    jwt::Jwt,
    mail::{self, Mail},
    sso::Sso,
    web_client::WebClient,
};

/// How long background tasks have to finish once the server stops.
const BACKGROUND: Duration = Duration::from_secs(5);
/// About how much memory the unread counts of one user in one room take.
const UNREAD_BYTES: u64 = 256;

/// Bounds on what a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest body that is not an upload, in bytes.
    pub request_bytes: usize,
    /// The largest body of another server's request, in bytes: a transaction of fifty large events and a hundred EDUs.
    pub federation_bytes: usize,
}

/// The built parts. Cheap to clone; handlers get one.
#[derive(Clone)]
pub struct App {
    parts: Arc<Parts>,
}

/// What a server consists of.
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// This server's name.
    pub server_name: OwnedServerName,
    /// The time.
    pub clock: SharedClock,
    /// The store.
    pub store: Store,
    /// Asks other servers.
    pub remote: Remote,
    /// The keys of other servers, and this one's.
    pub keys: Keys,
    /// Accounts.
    pub users: Users,
    /// Keys, signatures and messages to devices.
    pub e2ee: E2ee,
    /// The same for users of every server.
    pub user_keys: UserKeys,
    /// Checks the tokens that people log in with, if that is wanted.
    pub jwt: Option<Jwt>,
    /// Judges whether who registers is a person, if that is wanted.
    pub captcha: Option<Captcha>,
    /// Single sign-on, if there is an identity provider.
    pub sso: Option<Sso>,
    /// What pages look like.
    pub pages: Arc<Templates>,
    /// Mail, if there is a mail server.
    pub mail: Option<Mail>,
    /// Rooms.
    pub rooms: Rooms,
    /// Typing, receipts and presence.
    pub ephemeral: Ephemeral,
    /// What /sync answers with.
    pub syncs: Syncs,
    /// Who waits for it.
    pub waiters: Waiters,
    /// The web client at `/`, if one is wanted and there.
    pub web_client: Option<WebClient>,
    /// Full-text search, if that is wanted.
    pub search: Option<Search>,
    /// Pictures and files.
    pub media: Media,
    /// Makes previews of URLs, if that is wanted.
    pub previews: Option<UrlPreviews>,
    /// Receives rooms' events of other servers.
    pub receiver: Receiver,
    /// Answers other servers.
    pub federation: Federation,
    /// Speaks to users for the server, if that is wanted.
    pub server_notices: Option<ServerNotices>,
    /// Takes what other servers tell.
    pub transactions: Transactions,
    /// Asks application services.
    pub asking: Asking,
    /// Tells other servers what happens here.
    pub sender: FederationSender,
    /// Tells push gateways.
    pub push_sender: PushSender,
    /// Writes to people who are away, if there is a mail server.
    pub mail_sender: Option<MailSender>,
    /// Empties messages that are too old, if that is wanted.
    pub retention: Option<Retention>,
    /// How the followers of the log are doing.
    pub followers: Vec<Arc<followers::Status>>,
    /// Bounds.
    pub limits: Limits,
    /// Limits on requests.
    pub rates: Rates,
    /// Who is believed to say where a request came from.
    pub proxies: Proxies,
    pub(crate) counts: Counts,
    /// Cancelled first: stop accepting, end long polls.
    pub soft_stop: CancellationToken,
    /// Background tasks, awaited before the store is closed.
    pub tasks: TaskTracker,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// Why a server cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] vatra_store::OpenError),
    /// The store is another server's.
    #[error("{place}: {reason}")]
    Whose {
        /// The setting.
        place: String,
        /// Why it cannot be that.
        reason: String,
    },
    /// The signing key cannot be read or made.
    #[error("the signing key {file}: {reason}")]
    Key {
        /// Which file.
        file: String,
        /// Why.
        reason: String,
    },
    /// This server's keys cannot be read or stored.
    #[error("this server's keys: {0}")]
    Keys(#[from] remote::keys::CommitOrRead),
    /// The network cannot be used as the settings say.
    #[error("{0}")]
    Network(String),
    /// Mail cannot be sent as the settings say.
    #[error("{0}")]
    Mail(String),
    /// Something cannot be as the settings say.
    #[error("{0}")]
    Setting(String),
    /// An application service cannot be registered.
    #[error("{0}")]
    Service(String),
    /// The application services' own users cannot be made.
    #[error("appservices: {0}")]
    Senders(#[from] UsersError),
    /// The media folder cannot be opened.
    #[error("{0}")]
    Media(String),
    /// The account that speaks for the server cannot be.
    #[error("server_notices.localpart: {0}")]
    ServerNotices(#[from] flows::FlowError),
    /// A trusted proxy is no address.
    #[error("client.trusted_proxies: {0} is no address")]
    Proxy(String),
    /// The server's name is none.
    #[error("server_name: {0}")]
    Name(#[from] ruma::IdParseError),
}

impl BuildError {
    fn setting(config: &Config, key: &str, text: &str) -> Self {
        Self::Setting(format!("{}: {text}", config.origin.of(key)))
    }

    fn service(config: &Config, text: String) -> Self {
        let place = config.origin.of("appservices.files");
        Self::Service(format!("{place}: {text}"))
    }

    fn media(config: &Config, error: &BlobError) -> Self {
        let (place, folder) = (config.origin.of("media_dir"), config.media_dir.display());
        Self::Media(format!(
            "{place}: {folder}: {error}. Name a folder that this server may write to"
        ))
    }

    fn store_of(config: &Config, error: NameError) -> Self {
        let reason = match error {
            NameError::Other(name) => format!(
                "the store in {} belongs to {name}. Write that name, or give {} a data_dir of its own",
                config.data_dir.display(),
                config.server_name
            ),
            error => error.to_string(),
        };
        let place = config.origin.of("server_name");
        Self::Whose { place, reason }
    }
}

impl App {
    /// Builds a server on an engine. The signing key is kept beside the store, in `data_dir`.
    pub async fn build(config: Config, engine: Arc<dyn Engine>) -> Result<Self, BuildError> {
        let clock: SharedClock = Arc::new(SystemClock);
        let random: SharedRandom = Arc::new(SystemRandom);
        let server_name = ServerName::parse(&config.server_name)?;
        let durability = match config.storage.durability {
            Durability::Synced => vatra_store::Durability::Synced,
            Durability::Relaxed => vatra_store::Durability::Relaxed,
        };
        let options = Options {
            durability,
            ..Options::default()
        };
        let store = Store::open(engine, options, schema::migrations()).await?;
        if let Err(error) = server_name::claim(&store, &server_name).await {
            store.close().await;
            return Err(BuildError::store_of(&config, error));
        }
        let signer = Arc::new(signing_key(&config.data_dir, server_name.clone(), &*random).await?);

        let remote = Remote::new(remote::Parts {
            store: store.clone(),
            clock: clock.clone(),
            random: random.clone(),
            signer: signer.clone(),
            transport: network(&config, &clock, &random)?,
        });
        let notaries = config.federation.trusted_key_servers.iter();
        let keys = Keys::open(remote::keys::Parts {
            store: store.clone(),
            clock: clock.clone(),
            signer: signer.clone(),
            remote: remote.clone(),
            notaries: notaries.map(ServerName::parse).collect::<Result<_, _>>()?,
        })
        .await?;

        let ids = Ids::new(store.clone(), 50_000);
        // The engine's caches have half of the budget; events and state share a quarter; of the last quarter, names, tokens
        // and what /sync remembers of users take the most.
        let quarter = config.storage.memory_budget_bytes / 4;
        let sizes = CacheSizes {
            events: quarter / 2,
            state: quarter / 2,
            ..CacheSizes::default()
        };
        let rooms = Rooms::new(store.clone(), ids.clone(), clock.clone(), signer, sizes);
        let e2ee = E2ee::new(store.clone(), ids.clone());
        let services = config::appservices::services(&config.appservices.files, &server_name)
            .map_err(|text| BuildError::service(&config, text))?;
        let users = Users::with_services(
            store.clone(),
            ids,
            clock.clone(),
            random.clone(),
            server_name.clone(),
            services,
        )
        .notifying_new_emails(config.email.notify_new_accounts && !config.smtp.host.is_empty());
        let blobs = blobs(&config).await?;
        let pages = Arc::new(mail::load(&config).map_err(BuildError::Mail)?);
        let mail = Mail::build(&config, &store, &users, &pages).map_err(BuildError::Mail)?;
        users.make_senders().await?;
        let settings = media_settings(&config, server_name.clone());
        let media = Media::new(
            store.clone(),
            blobs,
            clock.clone(),
            random.clone(),
            settings,
            config.federation.enabled.then(|| remote.clone()),
        );
        let previews = previews(&config, &media, &clock)?;

        let ephemeral = Ephemeral::new(store.clone(), clock.clone(), config.presence.enabled);
        let (soft_stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        if let Some(mail) = &mail {
            mail.run(&tasks, &soft_stop);
        }
        let waiters = Waiters::new(rooms.clone());
        tasks.spawn(waiters.clone().run(store.wakes(), soft_stop.clone()));
        tasks.spawn(
            ephemeral
                .presence
                .clone()
                .run(rooms.clone(), soft_stop.clone()),
        );
        let providers = Providers {
            rooms: rooms.clone(),
            users: users.clone(),
            e2ee: e2ee.clone(),
            ephemeral: ephemeral.clone(),
            unreads: Unreads::new(
                usize::try_from(quarter / 4 / UNREAD_BYTES).unwrap_or(usize::MAX),
            ),
        };
        let sender = FederationSender::new(federation_sender::Parts {
            rooms: rooms.clone(),
            remote: remote.clone(),
            ephemeral: ephemeral.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            shutdown: soft_stop.clone(),
        });
        let devices = Arc::new(Devices::new(e2ee.clone(), rooms.clone()));
        let edus = Edus::new(rooms.clone(), ephemeral.clone(), vec![devices]);
        let user_keys = UserKeys {
            e2ee: e2ee.clone(),
            remote: remote.clone(),
            rooms: rooms.clone(),
            federates: config.federation.enabled,
        };
        let receiver = Receiver::new(rooms.clone(), remote.clone(), keys.clone());
        let server_notices = match voice(&config) {
            Some(voice) => Some(ServerNotices::open(users.clone(), receiver.clone(), voice).await?),
            None => None,
        };
        let federation = Federation::new(receiver.clone(), users.clone());
        let receive = Arc::new(Receiving {
            federation: federation.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
        });
        let transactions = Transactions::new(store.clone(), clock.clone(), edus, receive);
        let asking = Asking::new(service_line(&config)?);
        let mut followers = Vec::new();
        let follow = |follower: Arc<dyn Follower>, all: &mut Vec<_>| {
            let status = followers::Status::new(follower.name());
            all.push(status.clone());
            let (store, stop) = (store.clone(), soft_stop.clone());
            tasks.spawn(followers::run(follower, store, status, stop));
        };
        let telling = AppserviceSender::new(appservice_sender::Parts {
            rooms: rooms.clone(),
            ephemeral: ephemeral.clone(),
            services: users.services().clone(),
            asking: asking.clone(),
            clock: clock.clone(),
            random: random.clone(),
        });
        tell_services(&telling, &users, &mut followers, &tasks, &soft_stop).await;
        if config.federation.enabled {
            follow(Arc::new(sender.clone()), &mut followers);
            tasks.spawn(sender.clone().run());
            tasks.spawn(undo_joins(receiver.clone(), soft_stop.clone()));
            let names = config.federation.share_device_names;
            let key_news = KeyNews::new(e2ee.clone(), rooms.clone(), names);
            follow(Arc::new(key_news.clone()), &mut followers);
            tasks.spawn(key_news.run(soft_stop.clone()));
        }
        follow(Arc::new(Guests::new(rooms.clone())), &mut followers);
        let shown = MediaShown::new(rooms.clone(), clock.clone());
        follow(Arc::new(shown), &mut followers);
        let notices = Notices::new(rooms.clone(), users.clone(), clock.clone());
        follow(Arc::new(notices.clone()), &mut followers);
        tasks.spawn(notices.clone().run(soft_stop.clone()));
        let web_client = WebClient::build(&config.web_client);
        if web_client.is_none() && config.web_client.enabled {
            tracing::info!(
                "this program was built without the web client: `make web` builds it, and needs Node.js 20"
            );
        }
        let search = config.search.enabled.then(|| {
            let search = Search::new(rooms.clone());
            let parts = search_indexer::Parts {
                rooms: rooms.clone(),
                search: search.clone(),
                clock: clock.clone(),
                folder: config.data_dir.join("search"),
                memory_bytes: usize::try_from(quarter / 4).unwrap_or(usize::MAX),
            };
            let status = followers::Status::new(search_indexer::NAME);
            followers.push(status.clone());
            tasks.spawn(search_indexer::run(parts, status, soft_stop.clone()));
            search
        });
        let retention = config.retention.enabled.then(|| {
            let retention = Retention::new(retention::Parts {
                rooms: rooms.clone(),
                clock: clock.clone(),
                policy: retention_policy(&config),
                interval: Duration::from_secs(config.retention.interval_s),
            });
            tasks.spawn(retention.clone().run(soft_stop.clone()));
            retention
        });
        let mail_sender = mail.as_ref().map(|mail| {
            let server_notices = server_notices.clone();
            mail.write_to_the_away(
                &config,
                (&notices, &rooms, &users),
                server_notices,
                &tasks,
                &soft_stop,
            )
        });
        let push_sender = PushSender::new(push_sender::Parts {
            notices,
            rooms: rooms.clone(),
            users: users.clone(),
            gateway: Arc::new(gateways(&config)?),
            clock: clock.clone(),
            random,
            tasks: tasks.clone(),
            shutdown: soft_stop.clone(),
        });
        tasks.spawn(push_sender.clone().run());
        let syncs = Syncs::new(
            rooms.clone(),
            waiters.clone(),
            providers,
            quarter / 4,
            soft_stop.clone(),
        );

        let proxies = Proxies::read(&config.client.trusted_proxies)
            .map_err(|text| BuildError::Proxy(text.to_owned()))?;
        let rates = Rates::new(config.rate_limits.enabled);
        let limits = Limits {
            request_bytes: config.client.max_request_bytes,
            federation_bytes: 12 << 20,
        };
        let sso = Sso::build(&config, &sso_web(&config)?)
            .map_err(|(key, text)| BuildError::setting(&config, key, &text))?;
        let captcha = Captcha::build(&config, &own_web()?);
        let jwt =
            Jwt::build(&config).map_err(|(key, text)| BuildError::setting(&config, key, &text))?;
        let parts = Parts {
            config,
            server_name,
            clock,
            store,
            remote,
            keys,
            users,
            e2ee,
            user_keys,
            jwt,
            captcha,
            sso,
            pages,
            mail,
            rooms,
            ephemeral,
            syncs,
            waiters,
            web_client,
            search,
            media,
            previews,
            receiver,
            federation,
            server_notices,
            transactions,
            asking,
            sender,
            push_sender,
            mail_sender,
            retention,
            followers,
            limits,
            rates,
            proxies,
            counts: Counts::default(),
            soft_stop,
            tasks,
        };
        Ok(Self {
            parts: Arc::new(parts),
        })
    }

    /// Ends everything: long polls first, the committer last. What runs in the background has some seconds to finish.
    pub async fn close(&self) {
        self.soft_stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(BACKGROUND, self.tasks.wait())
            .await
            .is_err()
        {
            // From here on none of them can write.
            tracing::warn!(left = self.tasks.len(), "background tasks do not end");
        }
        self.store.close().await;
    }
}

/// Undoes what a stop has left of joins that were asked for.
async fn undo_joins(receiver: Receiver, stop: CancellationToken) {
    let undone = tokio::select! {
        () = stop.cancelled() => return,
        undone = flows::join::undo_pending(&receiver) => undone,
    };
    if let Err(error) = undone {
        tracing::warn!(%error, "joins that did not end cannot be undone");
    }
}

/// Previews of URLs as the settings say.
fn previews(
    config: &Config,
    media: &Media,
    clock: &SharedClock,
) -> Result<Option<UrlPreviews>, BuildError> {
    let settings = &config.url_preview;
    if !settings.enabled {
        return Ok(None);
    }
    if settings.reaches_own_networks() {
        tracing::warn!(
            "url_preview: everyone who has an account here can look at pages of this machine or your networks"
        );
    }
    let parts = url_preview::Parts {
        web: Arc::new(web_pages(config)?),
        media: media.clone(),
        clock: clock.clone(),
        settings: url_preview::Settings {
            allow_hosts: settings.allow_hosts.clone(),
            deny_hosts: settings.deny_hosts.clone(),
            max_page_bytes: settings.max_page_bytes,
            max_image_bytes: settings.max_image_bytes,
            timeout: Duration::from_secs(settings.timeout_s),
            keep_ms: settings.keep_s.saturating_mul(1_000),
        },
    };
    Ok(Some(UrlPreviews::new(parts)))
}

/// Starts to tell application services what happens.
async fn tell_services(
    telling: &AppserviceSender,
    users: &Users,
    followers: &mut Vec<Arc<followers::Status>>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    if let Err(error) = telling.forget_others().await {
        tracing::warn!(%error, "application services that are registered no more cannot be forgotten");
    }
    for service in users.services().all() {
        if service.url.is_none() {
            continue;
        }
        let plain =
            |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        let name: String = service.id.chars().filter(|it| plain(*it)).collect();
        let status = followers::Status::new(&format!("{}:{name}", appservice_sender::NAME));
        followers.push(status.clone());
        let running = telling.clone().run(service.clone(), status, stop.clone());
        tasks.spawn(running);
    }
}

/// What media may cost.
fn media_settings(config: &Config, server_name: OwnedServerName) -> MediaSettings {
    let (media, set) = (&config.media, |number: u64| (number != 0).then_some(number));
    let millis = |seconds: u64| set(seconds).map(|seconds| seconds.saturating_mul(1_000));
    MediaSettings {
        max_upload_bytes: media.max_upload_bytes,
        max_bytes_per_user: set(media.max_bytes_per_user),
        remote_max_age_ms: millis(media.remote_max_age_s),
        remote_max_bytes: set(media.remote_max_bytes),
        local_max_age_ms: millis(media.local_max_age_s),
        retracted_max_age_ms: millis(media.redacted_max_age_s),
        ..MediaSettings::new(server_name)
    }
}

/// How long messages are kept.
fn retention_policy(config: &Config) -> retention::Policy {
    let millis = |seconds: u64| (seconds != 0).then(|| seconds.saturating_mul(1_000));
    retention::Policy {
        default: millis(config.retention.default_max_lifetime_s),
        least: millis(config.retention.allowed_min_lifetime_s),
        most: millis(config.retention.allowed_max_lifetime_s),
    }
}

/// Who speaks for the server; `None` if nobody does.
fn voice(config: &Config) -> Option<Voice> {
    let settings = &config.server_notices;
    let voice = || Voice {
        localpart: settings.localpart.clone(),
        display_name: settings.display_name.clone(),
        version: config.rooms.default_version.clone(),
    };
    (!settings.localpart.is_empty()).then(voice)
}
