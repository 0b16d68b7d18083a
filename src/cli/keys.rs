//! `hookswitch keys …`: keys of production. Nothing here reads or writes a store.

use crate::vault::Keyring;
use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use std::io::Write;

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Print a fresh key-encryption key: 64 hex characters, for ENCRYPTION_KEY or as the first of
    /// HOOKSWITCH_KEYRING.
    Generate,
}

/// Prints the key and nothing else, so that `ENCRYPTION_KEY=$(hookswitch keys generate)` works.
///
/// # Errors
/// The system gives no randomness, or standard output is closed.
pub fn run(KeysArgs { command }: KeysArgs) -> anyhow::Result<()> {
    write(&command, &mut std::io::stdout().lock())
}

fn write(command: &KeysCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        KeysCommand::Generate => writeln!(out, "{}", Keyring::generate()?.expose_secret())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generate_prints_a_key_that_production_takes() {
        let mut out = Vec::new();
        write(&KeysCommand::Generate, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.len(), 65);
        let settings = crate::config::VaultSettings {
            encryption_key: Some(text.trim_end().into()),
            ..Default::default()
        };
        assert!(!Keyring::load(&settings).unwrap().is_dev());
    }
}
