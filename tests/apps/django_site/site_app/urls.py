"""The site's addresses, without trailing slashes."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from . import pages, probes

urlpatterns = [
    path("", pages.home),
    path("articles/<slug:slug>", pages.article),
    path("feedback", pages.feedback),
    path("login", LoginView.as_view(template_name="login.html")),
    path("logout", LogoutView.as_view(next_page="/")),
    path("me", pages.me),
    path("slow", pages.slow),
    path("sleep", probes.sleep),
    path("headers", probes.headers),
    path("upload", probes.upload),
    path("download", probes.download),
    path("status/<int:code>", probes.status),
    path("whoami", probes.whoami),
    path("healthz", probes.healthz),
]
