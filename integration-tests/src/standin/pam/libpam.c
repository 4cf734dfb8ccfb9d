/*
 * A replacement for libpam that asks the IAM stand-in whether a token is good.
 *
 * PostgreSQL (and MariaDB) load it in place of the system's libpam, through
 * LD_LIBRARY_PATH. It takes the password from the server's own conversation with the
 * client, sends it over a Unix socket, and believes only the answer 'A'. Everything else
 * (no socket, no answer in time, a token that is too long) is a refusal: it fails closed.
 *
 * There is no cryptography here, no PAM stack, and no reading of /etc/pam.d.
 *
 * What is sent: server NUL user NUL address NUL token, then the end of the stream.
 * What comes back: one byte, 'A' for accepted.
 *
 * From the environment: IAM_STANDIN_SOCKET (path), IAM_STANDIN_SERVER (name).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* The parts of the PAM interface that the servers use (Linux-PAM's numbers). */
enum { PAM_SUCCESS = 0, PAM_SYSTEM_ERR = 4, PAM_BUF_ERR = 5, PAM_AUTH_ERR = 7, PAM_CONV_ERR = 19, PAM_BAD_ITEM = 29 };
enum { PAM_USER = 2, PAM_RHOST = 4, PAM_CONV = 5 };
enum { PAM_PROMPT_ECHO_OFF = 1 };

struct pam_message { int msg_style; const char *msg; };
struct pam_response { char *resp; int resp_retcode; };
struct pam_conv {
	int (*conv)(int count, const struct pam_message **messages, struct pam_response **responses, void *data);
	void *appdata_ptr;
};

struct pam_handle {
	char *user;
	char *address;
	struct pam_conv conv;
};

enum { LONGEST_TOKEN = 8192, LONGEST_NAME = 256, ANSWER_SECONDS = 10 };

static int copy_text(char **to, const char *text)
{
	char *copy = text ? strndup(text, LONGEST_NAME) : calloc(1, 1);
	if (!copy)
		return PAM_BUF_ERR;
	free(*to);
	*to = copy;
	return PAM_SUCCESS;
}

int pam_start(const char *service, const char *user, const struct pam_conv *conv, struct pam_handle **handle)
{
	(void) service;
	struct pam_handle *made = calloc(1, sizeof *made);
	if (!made)
		return PAM_BUF_ERR;
	if (copy_text(&made->user, user) || copy_text(&made->address, NULL)) {
		free(made->user);
		free(made);
		return PAM_BUF_ERR;
	}
	if (conv)
		made->conv = *conv;
	*handle = made;
	return PAM_SUCCESS;
}

int pam_end(struct pam_handle *handle, int status)
{
	(void) status;
	if (handle) {
		free(handle->user);
		free(handle->address);
		free(handle);
	}
	return PAM_SUCCESS;
}

int pam_set_item(struct pam_handle *handle, int item, const void *value)
{
	switch (item) {
	case PAM_USER:
		return copy_text(&handle->user, value);
	case PAM_RHOST:
		return copy_text(&handle->address, value);
	case PAM_CONV:
		if (!value)
			return PAM_BAD_ITEM;
		handle->conv = *(const struct pam_conv *) value;
		return PAM_SUCCESS;
	default:
		return PAM_SUCCESS; /* terminal and the like: of no use here */
	}
}

int pam_get_item(const struct pam_handle *handle, int item, const void **value)
{
	switch (item) {
	case PAM_USER:
		*value = handle->user;
		return PAM_SUCCESS;
	case PAM_RHOST:
		*value = handle->address;
		return PAM_SUCCESS;
	case PAM_CONV:
		*value = &handle->conv;
		return PAM_SUCCESS;
	default:
		*value = NULL;
		return PAM_BAD_ITEM;
	}
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = ANSWER_SECONDS };

	if (!path || strlen(path) >= sizeof address.sun_path)
		return -1;
	strcpy(address.sun_path, path);

	int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (peer < 0)
		return -1;
	/* The sending limit also bounds connect() when the stand-in's queue is full. */
	if (setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience)
	    || setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience)
	    || connect(peer, (struct sockaddr *) &address, sizeof address)) {
		close(peer);
		return -1;
	}
	return peer;
}

static int send_all(int peer, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t sent = send(peer, bytes, length, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return -1;
		bytes += sent;
		length -= (size_t) sent;
	}
	return 0;
}

/* A text and its closing NUL. */
static int send_text(int peer, const char *text)
{
	return send_all(peer, text, strlen(text) + 1);
}

static int ask(const struct pam_handle *handle, const char *token)
{
	const char *server = getenv("IAM_STANDIN_SERVER");
	char answer = 0;
	int verdict = PAM_AUTH_ERR;

	if (!server)
		return PAM_SYSTEM_ERR;
	int peer = connect_to(getenv("IAM_STANDIN_SOCKET"));
	if (peer < 0)
		return PAM_SYSTEM_ERR;

	if (!send_text(peer, server) && !send_text(peer, handle->user) && !send_text(peer, handle->address)
	    && !send_all(peer, token, strlen(token)) && !shutdown(peer, SHUT_WR)) {
		ssize_t received;
		do
			received = recv(peer, &answer, 1, 0);
		while (received < 0 && errno == EINTR);
		if (received == 1 && answer == 'A')
			verdict = PAM_SUCCESS;
	}
	close(peer);
	return verdict;
}

int pam_authenticate(struct pam_handle *handle, int flags)
{
	(void) flags;
	const struct pam_message message = { .msg_style = PAM_PROMPT_ECHO_OFF, .msg = "Token: " };
	const struct pam_message *messages = &message;
	struct pam_response *response = NULL;
	int verdict = PAM_AUTH_ERR;

	if (!handle->conv.conv)
		return PAM_CONV_ERR;
	int spoken = handle->conv.conv(1, &messages, &response, handle->conv.appdata_ptr);
	if (spoken != PAM_SUCCESS)
		return spoken;
	if (!response)
		return PAM_CONV_ERR;

	if (response->resp) {
		size_t length = strnlen(response->resp, LONGEST_TOKEN + 1);
		if (length > 0 && length <= LONGEST_TOKEN)
			verdict = ask(handle, response->resp);
		explicit_bzero(response->resp, length);
		free(response->resp);
	}
	free(response);
	return verdict;
}

int pam_acct_mgmt(struct pam_handle *handle, int flags)
{
	(void) handle;
	(void) flags;
	return PAM_SUCCESS; /* the token was the whole question */
}

const char *pam_strerror(struct pam_handle *handle, int status)
{
	(void) handle;
	switch (status) {
	case PAM_SUCCESS:
		return "Success";
	case PAM_AUTH_ERR:
		return "Authentication failure";
	case PAM_CONV_ERR:
		return "Conversation error";
	default:
		return "System error";
	}
}
