//! Agents that were let in.

use crate::authority::{Issued, Pki};
use crate::store;
use crate::subject::Subject;
use crate::token::{self, TokenText};
use contract::ApiError;
use rcgen::{CertificateSigningRequestParams, PublicKeyData as _};

/// What an agent may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentKind {
    /// The machine it runs on.
    Host,
    /// Any number of simulated hosts.
    Factory,
}

impl AgentKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentKind::Host => "host",
            AgentKind::Factory => "factory",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<AgentKind> {
        [AgentKind::Host, AgentKind::Factory].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// An agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// What its certificate names.
    pub uuid: String,
    /// What it may stand for: decided by its token.
    pub kind: AgentKind,
    /// For people.
    pub name: String,
    /// Whether it may not connect any more.
    pub revoked: bool,
}

/// What enrolment gives.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The agent.
    pub agent: Agent,
    /// Its certificate.
    pub issued: Issued,
}

impl Pki {
    /// Lets an agent in. The same token with the same key gives the same agent again, so that an agent whose answer was
    /// lost isn't locked out.
    ///
    /// # Errors
    /// 401 for a token that isn't valid (any more), 431 for a bad request.
    pub async fn enrol(&self, token: &str, csr_pem: &str, kind: AgentKind, name: &str) -> Result<Enrolled, ApiError> {
        let refused =
            || ApiError::unauthenticated("the enrolment token is unknown, used up or expired: make a new one");
        let token = TokenText::parse(token).map_err(|_| refused())?;
        let hash = token::hash(token.secret.expose());
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| ApiError::param(format!("the certificate request can't be used: {e}")))?;
        let key = token::hash_bytes(request.public_key.der_bytes());
        let enrolment_key = format!("{}{}", &hash[..32], &key[..32]);
        let name: String = name.chars().take(255).collect();
        let uuid = uuid::Uuid::new_v4().to_string();
        ::store::tx!(self.db, "enrol-agent", |tx| {
            let agent = match store::agent_by_key(tx, &enrolment_key).await? {
                Some(known) if known.revoked => return Err(refused()),
                Some(known) => known,
                None => {
                    let granted = store::use_token(tx, &hash).await?.ok_or_else(refused)?;
                    if granted != kind {
                        let granted = granted.as_str();
                        return Err(ApiError::param(format!("this token is for agents of kind {granted}")));
                    }
                    let agent = Agent { uuid: uuid.clone(), kind, name: name.clone(), revoked: false };
                    store::insert_agent(tx, &agent, &enrolment_key).await?;
                    agent
                }
            };
            let issued = self.sign(csr_pem, Subject::Host(agent.uuid.clone()), &[])?;
            store::record(tx, &issued).await?;
            Ok(Enrolled { agent, issued })
        })
        .await
    }

    /// A new certificate for an agent that showed a valid one.
    ///
    /// # Errors
    /// 401 when the agent was revoked, 431 for a bad request.
    pub async fn renew(&self, agent_uuid: &str, csr_pem: &str) -> Result<Issued, ApiError> {
        self.agent(agent_uuid).await?;
        self.issue(csr_pem, Subject::Host(agent_uuid.to_owned()), &[]).await
    }

    /// The agent with this UUID.
    ///
    /// # Errors
    /// 401 when there is none that may connect.
    pub async fn agent(&self, uuid: &str) -> Result<Agent, ApiError> {
        match store::find_agent(&self.db, uuid).await? {
            Some(agent) if !agent.revoked => Ok(agent),
            _ => Err(ApiError::unauthenticated(format!("agent {uuid} is unknown or was revoked: enrol it again"))),
        }
    }

    /// Revokes an agent and all its certificates; its connections end at once.
    ///
    /// # Errors
    /// When the database doesn't answer.
    pub async fn revoke_agent(&self, uuid: &str, reason: &str) -> Result<bool, ApiError> {
        let found = ::store::tx!(self.db, "revoke-agent", |tx| {
            let found = store::revoke_agent(tx, uuid).await?;
            store::revoke_subject(tx, &Subject::Host(uuid.to_owned()).uri(), reason).await?;
            Ok::<_, ApiError>(found > 0)
        })
        .await?;
        self.announce().await?;
        Ok(found)
    }
}
