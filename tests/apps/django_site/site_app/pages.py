"""What a visitor sees: pages from templates and queries, a form, a page of one's own."""

from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from .models import Article, Comment

SLOW_QUERIES = 20


@require_safe
def home(request):
    """The front page; by query and template some 30 ms of work on one slow core."""
    articles = Article.objects.annotate(replies=Count("comments")).prefetch_related("comments")
    return render(request, "home.html", {"articles": articles, "rounds": range(12)})


@require_safe
def article(request, slug):
    found = get_object_or_404(Article.objects.prefetch_related("comments"), slug=slug)
    return render(request, "article.html", {"article": found})


def feedback(request):
    """A form behind CSRF protection; a valid POST shows what was sent."""
    text = request.POST.get("text", "")
    status = 200 if request.method == "GET" or text else 422
    return render(request, "feedback.html", {"text": text}, status=status)


@login_required
def me(request):
    """Carries the user's name; no shared cache may ever keep it."""
    response = render(request, "me.html")
    response["Cache-Control"] = "private"
    return response


@require_safe
def slow(request):
    """Twenty queries, one after the other."""
    counts = [
        Comment.objects.filter(text__contains=f" {n} ").count() for n in range(SLOW_QUERIES)
    ]
    return render(request, "slow.html", {"counts": counts})
