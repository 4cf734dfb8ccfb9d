//! Settings of clients. The name that TLS verifies and that tokens are signed for is the RDS name; the address
//! that is dialled is the proxy's.

use std::fmt::Write;

use super::{Backend, ClientFiles, Plan};

/// Settings for each backend, for clients that log in as `user`.
pub fn clients(plan: &Plan, user: &str) -> String {
    let mut text = String::new();
    for backend in &plan.backends {
        // Writing to a String cannot fail.
        let _ = if backend.mysql {
            mysql(&mut text, plan, backend, user)
        } else {
            postgresql(&mut text, plan, backend, user)
        };
    }
    text
}

fn head(text: &mut String, backend: &Backend) -> std::fmt::Result {
    let Backend { name, cluster, .. } = backend;
    writeln!(text, "# === {name} ===")?;
    if cluster.is_none() && backend.servers.len() > 1 {
        writeln!(
            text,
            "# The name below is that of one instance: after a failover its certificate and its tokens do not fit. Give \
             the endpoint\n# of the cluster: --cluster {name}=HOST:PORT"
        )?;
    }
    Ok(())
}

fn postgresql(text: &mut String, plan: &Plan, backend: &Backend, user: &str) -> std::fmt::Result {
    let (host, signed) = backend.rds_name();
    let (bind, port, database) = (&plan.bind, backend.port, &backend.database_name);
    let ClientFiles { pgpass, plain, ca, .. } = &plan.files;
    head(text, backend)?;
    writeln!(
        text,
        "\n# libpq, psql. The password is in PGPASSFILE: a file of `token_files`, format pgpass.\n\
         PGPASSFILE={pgpass} psql \"host={host} hostaddr={bind} port={port} dbname={database} user={user} \
         sslmode=verify-full sslrootcert={ca}\"\n\
         \n# Python, psycopg: the same words.\n\
         psycopg.connect(host=\"{host}\", hostaddr=\"{bind}\", port={port}, dbname=\"{database}\", user=\"{user}\",\n    \
         sslmode=\"verify-full\", sslrootcert=\"{ca}\", passfile=\"{pgpass}\")\n\
         \n# Python, SQLAlchemy: a new token for each connection of the pool, from a file in the format `plain`.\n\
         @event.listens_for(engine, \"do_connect\")\n\
         def token(dialect, record, args, parameters):\n    \
         parameters[\"password\"] = open(\"{plain}\").read()\n\
         \n# Go, pgx: BeforeConnect of the pool reads the token, LookupFunc leads to the proxy.\n\
         config, _ := pgxpool.ParseConfig(\"host={host} port={port} dbname={database} user={user} sslmode=verify-full sslrootcert={ca}\")\n\
         config.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) {{ return []string{{\"{bind}\"}}, nil }}\n\
         config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {{\n    \
         token, err := os.ReadFile(\"{plain}\")\n    c.Password = string(token)\n    return err\n}}\n\
         \n# Node, pg: `host` is the proxy, `servername` is what TLS verifies, and `password` is asked for each connection.\n\
         new Pool({{ host: \"{bind}\", port: {port}, database: \"{database}\", user: \"{user}\",\n    \
         ssl: {{ servername: \"{host}\", ca: fs.readFileSync(\"{ca}\") }},\n    \
         password: () => fs.promises.readFile(\"{plain}\", \"utf8\") }})\n\
         \n# JDBC has one name for both. Let it lead to the proxy on the clients' hosts (/etc/hosts), with the proxy's port:\n\
         #   {bind} {host}\n\
         jdbc:postgresql://{host}:{port}/{database}?user={user}&sslmode=verify-full&sslrootcert={ca}\n\
         \n# Tokens are signed for {host}:{signed}, never for the proxy: rds-lb-agent token --endpoint {host}:{signed} --user {user}\n"
    )
}

fn mysql(text: &mut String, plan: &Plan, backend: &Backend, user: &str) -> std::fmt::Result {
    let (host, signed) = backend.rds_name();
    let (bind, port) = (&plan.bind, backend.port);
    let ClientFiles { option, plain, ca, .. } = &plan.files;
    head(text, backend)?;
    writeln!(
        text,
        "\n# mysql, mariadb: one name for both. Let it lead to the proxy on the clients' hosts (/etc/hosts):\n\
         #   {bind} {host}\n\
         # The user and the token are in an option file: a file of `token_files`, format mysql.\n\
         mysql --defaults-extra-file={option} --host={host} --port={port} \
         --ssl-ca={ca} --ssl-mode=VERIFY_IDENTITY --enable-cleartext-plugin\n\
         mariadb --defaults-extra-file={option} --host={host} --port={port} \
         --ssl-ca={ca} --ssl-verify-server-cert\n\
         \n# Go: the address is the proxy's, ServerName is what TLS verifies. BeforeConnect reads the token.\n\
         mysql.RegisterTLSConfig(\"rds\", &tls.Config{{ServerName: \"{host}\", RootCAs: bundle}})\n\
         config := mysql.Config{{User: \"{user}\", Net: \"tcp\", Addr: \"{bind}:{port}\", TLSConfig: \"rds\", AllowCleartextPasswords: true}}\n\
         config.Apply(mysql.BeforeConnect(func(_ context.Context, c *mysql.Config) error {{\n    \
         token, err := os.ReadFile(\"{plain}\")\n    c.Passwd = string(token)\n    return err\n}}))\n\
         \n# JDBC: /etc/hosts as above.\n\
         jdbc:mysql://{host}:{port}/?user={user}&sslMode=VERIFY_IDENTITY\n\
         \n# Tokens are signed for {host}:{signed}, never for the proxy: rds-lb-agent token --endpoint {host}:{signed} --user {user}\n"
    )
}
