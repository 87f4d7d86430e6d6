"""One process and many threads: an instance holds many slow requests at little memory."""

worker_class = "gthread"
workers = 1
threads = 32
keepalive = 75
graceful_timeout = 5
# The gateway says who the client is; the application believes it, as a real one does.
forwarded_allow_ips = "*"
control_socket_disable = True
