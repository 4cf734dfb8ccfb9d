/*
 * The plugins of a real MySQL server in the IAM stand-in.
 *
 * AWSAuthenticationPlugin asks for the token as RDS does, and takes only what the stand-in
 * takes: `libpam.c`, compiled into the same library, asks it. standin_password takes the
 * text that the account was made with, for users who are nobody's subject. Both want TLS,
 * which `REQUIRE SSL` of the accounts sees to.
 *
 * The parts of MySQL's interface that are used here, as in its `plugin.h` and `plugin_auth.h`.
 */
enum { AUTHENTICATION = 7, GPL = 1, ERROR = 0, OK = -1 };

struct channel {
	int (*read_packet)(struct channel *, unsigned char **packet);
	int (*write_packet)(struct channel *, const unsigned char *packet, int length);
	void (*info)(struct channel *, void *info);
};

/* How it begins; there is more. */
struct login {
	char *user;
	unsigned int user_length;
	const char *account_text;
	unsigned long account_text_length;
};

static int hand_over(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
	(void) count;
	(void) messages;
	*responses = calloc(1, sizeof **responses);
	if (!*responses)
		return PAM_BUF_ERR;
	(*responses)->resp = strdup(data);
	return PAM_SUCCESS;
}

/* The text is sent with a NUL behind it. */
static const char *text_of(struct channel *channel)
{
	unsigned char *packet = NULL;
	int length = channel->read_packet(channel, &packet);
	return length > 0 && packet[length - 1] == 0 ? (const char *) packet : NULL;
}

static int by_token(struct channel *channel, struct login *login)
{
	const char *token = text_of(channel);
	const struct pam_conv conversation = { hand_over, (void *) token };
	struct pam_handle *handle = NULL;

	if (!token || pam_start("rds_iam", login->user, &conversation, &handle) != PAM_SUCCESS)
		return ERROR;
	int verdict = pam_authenticate(handle, 0);
	pam_end(handle, verdict);
	return verdict == PAM_SUCCESS ? OK : ERROR;
}

static int by_password(struct channel *channel, struct login *login)
{
	const char *text = text_of(channel);
	return text && login->account_text_length && strlen(text) == login->account_text_length
		&& !memcmp(text, login->account_text, login->account_text_length) ? OK : ERROR;
}

static int no_digest(char *digest, unsigned int *length, const char *text, unsigned int text_length)
{
	if (text_length > *length)
		return 1;
	memcpy(digest, text, text_length);
	*length = text_length;
	return 0;
}

static int any_digest(char *const text, unsigned int length)
{
	(void) text;
	(void) length;
	return 0;
}

static int no_salt(const char *text, unsigned int length, unsigned char *salt, unsigned char *salt_length)
{
	(void) text;
	(void) length;
	(void) salt;
	*salt_length = 0;
	return 0;
}

struct authentication {
	int version;
	const char *asked_by;
	int (*decide)(struct channel *, struct login *);
	int (*digest)(char *, unsigned int *, const char *, unsigned int);
	int (*check_digest)(char *const, unsigned int);
	int (*salt)(const char *, unsigned int, unsigned char *, unsigned char *);
	unsigned long flags;
	void *compare;
};

/* Any minor version of the second interface. */
static struct authentication token = { 0x02ff, "mysql_clear_password", by_token, no_digest, any_digest, no_salt, 0, 0 };
static struct authentication password = { 0x02ff, "mysql_clear_password", by_password, no_digest, any_digest, no_salt, 0, 0 };

struct plugin {
	int type;
	void *info;
	const char *name, *author, *description;
	int license;
	void *init, *check_uninstall, *deinit;
	unsigned int version;
	void *status, *variables, *reserved;
	unsigned long flags;
};

int _mysql_plugin_interface_version_ = 0x010b;
int _mysql_sizeof_struct_st_plugin_ = sizeof(struct plugin);
struct plugin _mysql_plugin_declarations_[] = {
	{ AUTHENTICATION, &token, "AWSAuthenticationPlugin", "", "takes genuine tokens", GPL, 0, 0, 0, 1, 0, 0, 0, 0 },
	{ AUTHENTICATION, &password, "standin_password", "", "takes the account's text", GPL, 0, 0, 0, 1, 0, 0, 0, 0 },
	{ 0 },
};
