//! The hostile clients of `scripts/siege`, which starts them. They continue until standard input ends, and print how
//! often they attacked.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use bench::attacks::{ATTACKS, Attack, Attempts, Besieger};
use shared::config::{ConfigError, Vars};
use tokio::io::AsyncReadExt as _;

struct Config {
    attack: &'static Attack,
    gateway: SocketAddr,
    besieger: Besieger,
}

impl Config {
    fn from_vars(mut vars: Vars) -> Result<Self, ConfigError> {
        let number = vars.required::<usize>("ATTACK", "which attack, by its place in the list");
        let attack = number.and_then(|number| ATTACKS.get(number));
        let port: Option<u16> = vars.required("PORT", "the gateway's port");
        let token = vars.required("TOKEN", "an access token of the besieger");
        let order = vars.required("ORDER", "an order of the besieger");
        let config = || {
            let gateway = (Ipv4Addr::LOCALHOST, port?).into();
            Some(Self { attack: attack?, gateway, besieger: Besieger { token: token?, order: order? } })
        };
        let config = config();
        vars.finish(config)
    }
}

#[actix_web::main]
async fn main() -> ExitCode {
    let Config { attack, gateway, besieger } = shared::config::load(Config::from_vars);
    println!("{}", attack.name);
    let (mut input, attempts) = (tokio::io::stdin(), Attempts::default());
    tokio::select! {
        () = besieger.attack(attack, gateway, &attempts) => return ExitCode::FAILURE,
        _ = input.read_u8() => {}
    }
    println!("{}", attempts.to_line());
    ExitCode::SUCCESS
}
