//! What a simulated VM shows: its name, and what was typed. A stand-in for a hypervisor's VNC server.

mod font;
mod pixels;
mod rfb;

pub(super) use rfb::serve;

use contract_agent::VmSpec;
use tokio::sync::watch;

/// Columns of pixels.
pub(super) const WIDTH: u16 = 640;
/// Rows of pixels.
pub(super) const HEIGHT: u16 = 400;
/// Most characters that are kept of what was typed.
const TYPED: usize = 48;
/// Colours, 0xRRGGBB.
const BACKGROUND: u32 = 0x00_1b_3a_5c;
const BRIGHT: u32 = 0x00_ff_ff_ff;
const DIM: u32 = 0x00_9f_c3_e6;

/// A VM's screen, whoever looks at it.
#[derive(Default)]
pub(super) struct Screen(watch::Sender<Shown>);

/// What is on it at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// The VM is off: whoever looks is disconnected.
    pub off: bool,
    /// What was typed since the last line break.
    pub typed: String,
}

impl Screen {
    /// Follows what is shown.
    pub fn look(&self) -> watch::Receiver<Shown> {
        self.0.subscribe()
    }

    /// The VM went off.
    pub fn off(&self) {
        self.0.send_modify(|shown| shown.off = true);
    }

    /// A key (an X11 keysym) went down.
    pub fn key(&self, keysym: u32) {
        const BACKSPACE: u32 = 0xff08;
        const ENTER: u32 = 0xff0d;
        self.0.send_modify(|shown| match keysym {
            0x20..=0x7e if shown.typed.len() < TYPED => shown.typed.extend(char::from_u32(keysym)),
            BACKSPACE => drop(shown.typed.pop()),
            ENTER => shown.typed.clear(),
            _ => {}
        });
    }
}

/// The name that a viewer sees.
pub(super) fn title(spec: &VmSpec) -> String {
    let name = if spec.display_name.is_empty() { &spec.instance_name } else { &spec.display_name };
    if name.is_empty() { spec.uuid.clone() } else { name.clone() }
}

/// The picture: pixels by rows, 0xRRGGBB.
fn draw(spec: &VmSpec, shown: &Shown) -> Vec<u32> {
    let mut picture = vec![BACKGROUND; usize::from(WIDTH) * usize::from(HEIGHT)];
    let mut line = |y: usize, scale: usize, colour: u32, text: &str| {
        font::write(&mut picture, usize::from(WIDTH), (24, y), scale, colour, text);
    };
    line(32, 4, BRIGHT, &title(spec));
    line(96, 2, DIM, &spec.instance_name);
    line(124, 2, DIM, &spec.uuid);
    line(152, 2, DIM, &format!("{} CPU, {} MB", spec.cpus, spec.memory_bytes >> 20));
    line(220, 2, BRIGHT, &format!("> {}_", shown.typed));
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_shown() {
        let screen = Screen::default();
        let spec = VmSpec { display_name: "web".into(), ..VmSpec::default() };
        let empty = draw(&spec, &screen.look().borrow());
        for key in [u32::from('h'), u32::from('o'), 0xff08, u32::from('i')] {
            screen.key(key);
        }
        assert_eq!(screen.look().borrow().typed, "hi");
        assert_ne!(draw(&spec, &screen.look().borrow()), empty);
        screen.key(0xff0d);
        assert_eq!(draw(&spec, &screen.look().borrow()), empty);
        assert!(empty.contains(&BRIGHT) && empty.contains(&BACKGROUND));
        for _ in 0..2 * TYPED {
            screen.key(u32::from('x'));
        }
        assert_eq!(screen.look().borrow().typed.len(), TYPED);
    }
}
