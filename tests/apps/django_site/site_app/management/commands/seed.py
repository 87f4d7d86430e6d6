"""Fills an empty database: 50 users with one password, 40 articles with 5 comments each."""

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

from site_app.models import Article, Comment

USERS = 50
ARTICLES = 40
COMMENTS = 5
PASSWORD = "correct-horse"


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args, **options):
        if User.objects.exists():
            self.stdout.write("already seeded")
            return
        for number in range(USERS):
            User.objects.create_user(f"user{number}", password=PASSWORD)
        articles = Article.objects.bulk_create(
            Article(slug=f"article-{n}", title=f"Article {n}", body=f"Paragraph {n}. " * 40)
            for n in range(ARTICLES)
        )
        Comment.objects.bulk_create(
            Comment(article=article, author=f"user{n}", text=f"Comment {n} on {article.title}")
            for article in articles
            for n in range(COMMENTS)
        )
