//! The grants of the agent's user: the scripts of `deploy`.

/// The statements that create the agent's user, and with `closing` let it close sessions.
///
/// # Errors
/// The name of the user would need quotes, which the scripts do not have.
pub fn grants(mysql: bool, mariadb: bool, user: &str, closing: bool) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if user.is_empty() || !user.chars().all(plain) || user.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "the user `{user}` needs quotes; take the scripts in deploy/ and put its name there"
        ));
    }
    let (agent, retire, member) = if mysql {
        (
            include_str!("../../../../deploy/mysql/agent.sql"),
            include_str!("../../../../deploy/mysql/retire.sql"),
            "GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent;",
        )
    } else {
        (
            include_str!("../../../../deploy/postgresql/agent.sql"),
            include_str!("../../../../deploy/postgresql/retire.sql"),
            "GRANT lb_agent_retire TO lb_agent;",
        )
    };
    let mut text = agent.to_owned();
    if mariadb {
        text = text.replace("-- MariaDB, in addition: ", "");
    }
    if closing {
        text = format!("{text}\n{retire}\n{member}\n");
    }
    // The roles of the scripts, as lb_agent_retire, and the schema rds_lb_agent keep their names.
    let lines = text.lines().map(|line| replaced(line, user) + "\n");
    Ok(lines.collect())
}

/// A line with the name of the user in place of `lb_agent`, where that is a whole word.
fn replaced(line: &str, user: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("lb_agent") {
        let (before, found) = rest.split_at(at);
        let after = found.get("lb_agent".len()..).unwrap_or_default();
        let whole = !before.ends_with(word) && !after.starts_with(word);
        text.push_str(before);
        text.push_str(if whole { user } else { "lb_agent" });
        rest = after;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_replaced_and_the_roles_of_the_scripts_are_not() {
        let text = grants(false, false, "watcher", true).unwrap();
        for line in ["CREATE ROLE watcher LOGIN;", "TO watcher;", "GRANT lb_agent_retire TO watcher;"] {
            assert!(text.contains(line), "{line}");
        }
        assert!(text.contains("rds_lb_agent.") && !text.contains("rds_watcher"));
        let text = grants(true, true, "watcher", false).unwrap();
        assert!(text.contains("\nGRANT REPLICA MONITOR ON *.* TO watcher;") && !text.contains("PROCEDURE"));
        assert!(grants(false, false, "x; DROP", false).is_err());
    }
}
