"""A site as a small team runs it: sessions in the database, CSRF, login, templates.

Environment: SITE_DATA is the folder of the SQLite file, INSTANCE the name of this process
(default: of the host).
"""

import os
import socket
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
SITE_DATA = Path(os.environ["SITE_DATA"])
INSTANCE = os.environ.get("INSTANCE") or socket.gethostname()
# How much slower than others this instance answers /whoami.
LATENCY_MS = int(os.environ.get("LATENCY_MS", "0"))

DEBUG = False
ALLOWED_HOSTS = ["*"]
# Signs the sessions of a test site with public passwords: not a secret.
SECRET_KEY = "the-test-site-has-no-secrets-to-keep-from-anyone"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "site_app",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "site_app.urls"
WSGI_APPLICATION = "site_app.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ],
        },
    },
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": SITE_DATA / "site.sqlite3",
        "CONN_MAX_AGE": 60,
        "OPTIONS": {
            # Several instances write sessions into one file.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Fifty users are seeded before every test run; a slow hash would protect nothing here.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/me"
USE_TZ = True
TIME_ZONE = "UTC"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
