//! The syntax of values: `14m`, `50%`, `host:5432`.

use std::time::Duration;

/// Parses `250ms`, `30s`, `14m`, `1h30m`, `2d`. A number without a unit is an error.
///
/// # Errors
/// A hint.
pub fn duration(text: &str) -> Result<Duration, String> {
    const EXAMPLE: &str = "write a number with a unit: 250ms, 30s, 14m, 1h30m";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(EXAMPLE.into());
    }
    if rest.parse::<f64>().is_ok() {
        return Err(format!("`{rest}` has no unit; did you mean `{rest}s` or `{rest}m`?"));
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| EXAMPLE.to_owned())?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let millis: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(EXAMPLE.into()),
        };
        let part = number.checked_mul(millis).ok_or("it is longer than any time that makes sense")?;
        total = total.saturating_add(Duration::from_millis(part));
        rest = after.trim_start();
    }
    Ok(total)
}

/// Parses `50%` as 0.5.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix('%').ok_or("write it in per cent, like 50%")?;
    match number.trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("it is a number from 0% to 100%".into()),
    }
}

/// Parses `host:port`. IPv6 addresses are in brackets.
pub(super) fn host_port(text: &str) -> Result<(&str, u16), String> {
    if text.contains("://") {
        return Err("write HOST:PORT alone, without a scheme".into());
    }
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing: write HOST:PORT, like HOST:5432")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err("put an IPv6 address in brackets: [ADDRESS]:PORT".into());
    }
    let host = bare.unwrap_or(host);
    if host.is_empty() {
        return Err("the host is missing: write HOST:PORT".into());
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#,".contains(c)) {
        return Err("write HOST:PORT alone, without a user, a path or a list".into());
    }
    match port.parse() {
        Ok(port) if port > 0 => Ok((host, port)),
        _ => Err(format!("`{port}` is not a port: a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, millis) in
            [("250ms", 250), ("30s", 30_000), ("14m", 840_000), ("1h30m", 5_400_000), ("1m 5s", 65_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_with_the_likely_one() {
        assert!(duration("30").unwrap_err().contains("did you mean `30s` or `30m`?"));
        for wrong in ["", "m", "five minutes", "10 parsecs", "-5s", "5s-"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_per_cent() {
        assert_eq!(share("50%"), Ok(0.5));
        assert!(share("0.5").is_err() && share("120%").is_err() && share("-1%").is_err());
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(host_port("db.example:5432"), Ok(("db.example", 5432)));
        assert_eq!(host_port("[fd00::1]:5432"), Ok(("fd00::1", 5432)));
        for wrong in [
            "db.example",
            "db.example:",
            "db.example:0",
            ":5432",
            "postgres://db:5432",
            "me@db.example:5432",
            "db.example/orders:5432",
            "one.example:5432,two.example:5432",
            "fd00::1:5432",
        ] {
            assert!(host_port(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_them_fail_badly(text in any::<String>()) {
            let _ = (duration(&text), share(&text), host_port(&text));
        }
    }
}
