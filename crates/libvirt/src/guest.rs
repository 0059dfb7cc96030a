//! The guest's inside and its screen: agent, monitor, screenshot, console.

use crate::connection::Connection;
use crate::domain::DomainRef;
use crate::errors::Result;
use crate::flags::ConsoleFlags;
use crate::message::Program;
use crate::procedure as p;
use crate::streams::ByteStream;

/// Largest screenshot, bytes: an uncompressed 4K picture has 25 MB.
pub const SCREENSHOT_MAX: usize = 64 << 20;

/// A picture of a guest's screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screenshot {
    /// `"image/png"` or `"image/x-portable-pixmap"`.
    pub mime: String,
    /// The file.
    pub image: Vec<u8>,
}

/// How long to wait for the guest agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentPatience {
    /// For ever. **The domain is blocked for other calls meanwhile.**
    Endless,
    /// libvirt's default: 5 s.
    Usual,
    /// So many seconds.
    Seconds(u32),
}

impl Connection {
    /// A picture of the guest's screen.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn screenshot(&self, domain: &DomainRef, screen: u32) -> Result<Screenshot> {
        let (mime, stream): (Option<String>, ByteStream) =
            ByteStream::open(self, p::DOMAIN_SCREENSHOT, (domain, screen, 0_u32)).await?;
        Ok(Screenshot { mime: mime.unwrap_or_default(), image: stream.read_to_end(SCREENSHOT_MAX).await? })
    }

    /// The guest's serial console (`None`: the first), both ways.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn console(&self, domain: &DomainRef, device: Option<&str>, flags: ConsoleFlags) -> Result<ByteStream> {
        let ((), stream) = ByteStream::open(self, p::DOMAIN_OPEN_CONSOLE, (domain, device, flags)).await?;
        Ok(stream)
    }

    /// A command (JSON) for the guest agent, and its answer (JSON).
    ///
    /// # Errors
    /// [`is_agent_silent`](crate::Error::is_agent_silent), or what the daemon says.
    pub async fn agent_command(&self, domain: &DomainRef, json: &str, patience: AgentPatience) -> Result<String> {
        let seconds = match patience {
            AgentPatience::Endless => -2,
            AgentPatience::Usual => -1,
            AgentPatience::Seconds(seconds) => i32::try_from(seconds).unwrap_or(i32::MAX),
        };
        let arguments = (domain, json, seconds, 0_u32);
        let answer: Option<String> = self.call_program(Program::QEMU, p::QEMU_DOMAIN_AGENT_COMMAND, arguments).await?;
        Ok(answer.unwrap_or_default())
    }

    /// A command (JSON) for QEMU's monitor, and its answer. libvirt marks the domain as tainted: for questions only.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn monitor_command(&self, domain: &DomainRef, json: &str) -> Result<String> {
        self.call_program(Program::QEMU, p::QEMU_DOMAIN_MONITOR_COMMAND, (domain, json, 0_u32)).await
    }

    /// Freezes the guest's file systems (none named: all), by the agent; gives how many.
    ///
    /// # Errors
    /// [`is_agent_silent`](crate::Error::is_agent_silent), or what the daemon says.
    pub async fn freeze(&self, domain: &DomainRef, mount_points: &[&str]) -> Result<i32> {
        self.call(p::DOMAIN_FSFREEZE, (domain, mount_points, 0_u32)).await
    }

    /// Thaws the guest's file systems; gives how many.
    ///
    /// # Errors
    /// [`is_agent_silent`](crate::Error::is_agent_silent), or what the daemon says.
    pub async fn thaw(&self, domain: &DomainRef, mount_points: &[&str]) -> Result<i32> {
        self.call(p::DOMAIN_FSTHAW, (domain, mount_points, 0_u32)).await
    }

    /// Sets the password of a user in the guest, by the agent.
    ///
    /// # Errors
    /// [`is_agent_silent`](crate::Error::is_agent_silent), or what the daemon says.
    pub async fn set_user_password(&self, domain: &DomainRef, user: &str, password: &str) -> Result<()> {
        self.call(p::DOMAIN_SET_USER_PASSWORD, (domain, Some(user), Some(password), 0_u32)).await
    }
}
