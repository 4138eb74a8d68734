//! Cuts of the network.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::harness::redis::Plain;
use tests::harness::{Bench, Host, process, wait};

/// How long a packet may take; dropped ones take for ever.
const SOON: Duration = Duration::from_millis(300);

/// Whether a connection from `from` to `to` comes about.
fn reaches(from: &Host, to: &str) -> Result<bool> {
    let to: SocketAddr = to.parse()?;
    Ok(from.inside(|| TcpStream::connect_timeout(&to, SOON)).is_ok())
}

/// Whether a packet from one socket arrives at the other.
fn arrives(from: &UdpSocket, to: &UdpSocket) -> Result<bool> {
    let word = uuid::Uuid::new_v4().into_bytes();
    from.send_to(&word, to.local_addr()?)?;
    to.set_read_timeout(Some(SOON))?;
    let mut buffer = [0; 64];
    // What an earlier attempt left may come first.
    while let Ok((length, _)) = to.recv_from(&mut buffer) {
        if buffer[..length] == word {
            return Ok(true);
        }
    }
    Ok(false)
}

fn socket(host: &Host) -> Result<UdpSocket> {
    host.inside(|| UdpSocket::bind((host.address.as_str(), 0))).context("a socket")
}

#[test]
fn cuts_hit_what_they_say_and_nothing_else() {
    Bench::run_on_hosts("injection-network", 3, async |bench| {
        let (here, network) = (bench.here(), bench.network());
        let [h1, h2, h3] = [&bench.hosts()[0], &bench.hosts()[1], &bench.hosts()[2]];
        let on1 = Plain::start(&bench, "on1", h1).await?;
        let on2 = Plain::start(&bench, "on2", h2).await?;
        let (out1, out2) = (Plain::start(&bench, "out1", &here).await?, Plain::start(&bench, "out2", &here).await?);
        let all = || -> Result<Vec<bool>> {
            let ways = [
                (h1, &on2.address),
                (h2, &on1.address),
                (h3, &on1.address),
                (&here, &on1.address),
                (h1, &out1.address),
                (h1, &out2.address),
            ];
            ways.iter().map(|(from, to)| reaches(from, to)).collect()
        };
        ensure!(all()? == [true; 6], "before: {:?}", all()?);
        network.cut(h1, h2)?;
        ensure!(all()? == [false, false, true, true, true, true], "h1 from h2: {:?}", all()?);
        network.heal()?;
        network.cut_service(h1, &out1.address)?;
        ensure!(all()? == [true, true, true, true, false, true], "h1 from one service: {:?}", all()?);
        network.heal()?;
        network.cut_from_hosts(h1)?;
        ensure!(all()? == [false, false, false, true, true, true], "h1 from the other hosts: {:?}", all()?);
        network.heal()?;
        network.isolate(h1)?;
        ensure!(all()? == [false; 6], "h1 from all: {:?}", all()?);
        ensure!(reaches(h1, &on1.address)? && reaches(h2, &out1.address)?, "more than h1 is cut off");
        network.heal()?;
        ensure!(all()? == [true; 6], "healed: {:?}", all()?);
        Ok(())
    });
}

#[test]
fn one_way_loss_is_one_way() {
    Bench::run_on_hosts("injection-one-way", 2, async |bench| {
        let network = bench.network();
        let (h1, h2) = (&bench.hosts()[0], &bench.hosts()[1]);
        let (a, b, outside) = (socket(h1)?, socket(h2)?, socket(&bench.here())?);
        let ways = || anyhow::Ok([arrives(&a, &b)?, arrives(&b, &a)?, arrives(&a, &outside)?, arrives(&outside, &a)?]);
        ensure!(ways()? == [true; 4], "before: {:?}", ways()?);
        network.cut_one_way(h1, h2)?;
        ensure!(ways()? == [false, true, true, true], "from h1 to h2: {:?}", ways()?);
        network.heal()?;
        network.mute(h1)?;
        ensure!(ways()? == [false, true, false, true], "h1 is mute: {:?}", ways()?);
        network.heal()?;
        network.deafen(h1)?;
        ensure!(ways()? == [true, false, true, false], "h1 is deaf: {:?}", ways()?);
        Ok(())
    });
}

#[test]
fn cuts_and_loss_of_power_close_no_connection() {
    Bench::run_on_hosts("injection-power", 1, async |bench| {
        let (host, network) = (&bench.hosts()[0], bench.network());
        let server = Plain::start(&bench, "server", host).await?;
        let mut connection = TcpStream::connect(&server.address)?;
        connection.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut silent = || match connection.read(&mut [0; 16]) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            other => Err(anyhow::anyhow!("the connection ended: {other:?}")),
        };
        network.isolate(host)?;
        silent()?;
        network.heal()?;
        network.power_off(host)?;
        // A killed process is there until the kernel has ended its last thread.
        let gone = || if process::runs(server.process.pid()) { Err("the server is still there") } else { Ok(()) };
        wait::until_now("the server has ended", Duration::from_secs(10), gone).await?;
        silent()?;
        Ok(())
    });
}
