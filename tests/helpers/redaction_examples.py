"""Variables of environments, with values that are secrets and others: made up, in the forms that services give them."""

from __future__ import annotations

import base64
import random
import string
import uuid

HEX, UPPER, LOWER, DIGITS = "0123456789abcdef", string.ascii_uppercase, string.ascii_lowercase, string.digits
MIXED = string.ascii_letters + DIGITS
_WORDS = """correct horse battery staple orange window guitar mountain pencil silver basket thunder rocket candle garden
monkey winter copper island velvet"""
WORDS = _WORDS.split()


def secrets(seed):
    """A list of a variable and its value, a secret; another for each seed."""
    rng = random.Random(seed)  # noqa: S311

    def drawn(of, length):
        return "".join(rng.choice(of) for _ in range(length))

    def some(count, between):
        return between.join(rng.sample(WORDS, count))

    jwt = ".".join(base64.urlsafe_b64encode(rng.randbytes(n)).decode().rstrip("=") for n in (27, 60, 32))
    return [
        ("AWS_SECRET_ACCESS_KEY", base64.b64encode(rng.randbytes(30)).decode()),
        ("AWS_ACCESS_KEY_ID", "AKIA" + drawn(UPPER + "234567", 16)),
        ("AWS_SESSION_TOKEN", base64.b64encode(rng.randbytes(120)).decode()),
        ("GITHUB_TOKEN", "ghp_" + drawn(MIXED, 36)),
        ("GH_TOKEN", "github_pat_" + drawn(MIXED, 22) + "_" + drawn(MIXED, 59)),
        ("CI_JOB_TOKEN", "glcbt-64_" + drawn(MIXED, 20)),
        ("HF_TOKEN", "hf_" + drawn(string.ascii_letters, 34)),
        ("OPENAI_API_KEY", "sk-proj-" + drawn(MIXED + "-_", 48)),
        ("ANTHROPIC_API_KEY", "sk-ant-api03-" + drawn(MIXED + "-_", 80)),
        ("OPENAIKEY", "sk-" + drawn(MIXED, 32)),
        ("WANDB_API_KEY", drawn(HEX, 40)),
        ("COMET_API_KEY", drawn(MIXED, 25)),
        ("NEPTUNE_API_TOKEN", base64.b64encode(f'{{"api_key":"{drawn(HEX, 32)}"}}'.encode()).decode()),
        ("KAGGLE_KEY", drawn(HEX, 32)),
        ("MLFLOW_TRACKING_TOKEN", "eyJ" + jwt),
        ("MLFLOW_FLASK_SERVER_SECRET_KEY", drawn(MIXED, 24)),
        ("DATABRICKS_TOKEN", "dapi" + drawn(HEX, 32)),
        ("AZURE_CLIENT_SECRET", drawn(MIXED + "~._-", 40)),
        ("AZURE_STORAGE_KEY", base64.b64encode(rng.randbytes(64)).decode()),
        ("AZURE_SUBSCRIPTION_KEY", drawn(HEX, 32)),
        ("AZURE_OPENAI_KEY", drawn(HEX, 32)),
        ("GOOGLE_API_KEY", "AIza" + drawn(MIXED + "-_", 35)),
        ("GOOGLE_CREDENTIALS", f'{{"type": "service_account", "private_key_id": "{drawn(HEX, 40)}"}}'),
        ("SLACK_BOT_TOKEN", f"xoxb-{drawn(DIGITS, 12)}-{drawn(DIGITS, 12)}-{drawn(MIXED, 24)}"),
        ("STRIPE_SECRET_KEY", "sk_live_" + drawn(MIXED, 24)),
        ("TWILIO_AUTH_TOKEN", drawn(HEX, 32)),
        ("SENDGRID_API_KEY", f"SG.{drawn(MIXED, 22)}.{drawn(MIXED, 43)}"),
        ("TELEGRAM_BOT_TOKEN", f"{drawn(DIGITS, 10)}:{drawn(MIXED, 35)}"),
        ("DISCORD_TOKEN", f"{drawn(MIXED, 24)}.{drawn(MIXED, 6)}.{drawn(MIXED, 27)}"),
        ("NPM_TOKEN", "npm_" + drawn(MIXED, 36)),
        ("PYPI_TOKEN", "pypi-" + drawn(MIXED + "-_", 100)),
        ("DOCKER_ACCESS_TOKEN", "dckr_pat_" + drawn(MIXED, 27)),
        ("HEROKU_API_KEY", str(uuid.UUID(int=rng.getrandbits(128)))),
        ("SERVICE_TOKEN", str(uuid.UUID(int=rng.getrandbits(128)))),
        ("LICENSE_KEY", "-".join(drawn(UPPER + DIGITS, 5) for _ in range(5))),
        ("ENCRYPTION_KEY", drawn(HEX, 64)),
        ("FERNET_KEY", base64.urlsafe_b64encode(rng.randbytes(32)).decode()),
        ("SIGNING_KEY", "0x" + drawn(HEX, 64)),
        (
            "SSH_PRIVATE_KEY",
            f"-----BEGIN OPENSSH PRIVATE KEY-----\n{drawn(MIXED, 70)}\n-----END OPENSSH PRIVATE KEY-----",
        ),
        ("DJANGO_SECRET_KEY", "django-insecure-" + drawn(LOWER + DIGITS + "!@#$%^&*(-_=+)", 50)),
        ("JWT_SECRET", drawn(LOWER, 12)),
        ("API_KEY", drawn(LOWER + DIGITS, 16)),
        ("APIKEY", drawn(UPPER + DIGITS, 20)),
        ("MY_KEY", drawn(MIXED, 12)),
        ("TOTP_KEY", drawn(UPPER + "234567", 32)),
        ("DEPLOY_TOKEN", drawn(MIXED, 10)),
        ("AUTH_TOKEN", "Bearer " + drawn(MIXED, 40)),
        ("REGISTRY_TOKEN", base64.b64encode(f"user:{drawn(MIXED, 12)}".encode()).decode()),
        ("WEBHOOK_TOKEN_URL", f"https://hooks.example.org/services/T{drawn(UPPER, 8)}/{drawn(MIXED, 24)}"),
        ("DATABASE_KEY", f"postgresql://me:{drawn(MIXED, 10)}@db.example.org/x"),
        ("API_TOKENS", f"{drawn(HEX, 20)},{drawn(HEX, 20)}"),
        ("VAULT_TOKEN", "hvs." + drawn(MIXED, 24)),
        ("MASTER_KEY", some(4, " ")),
        ("BACKUP_KEY", some(5, " ")),
        ("GPG_PASSPHRASE", some(5, " ")),
        ("RESTIC_PASSWORD", some(4, "-")),
        ("WALLET_PASSPHRASE", some(3, "_")),
        ("ACCESS_TOKEN", some(4, "-")),
        ("PGPASSWORD", rng.choice(WORDS) + rng.choice(("wood", "ness", "land", "berry"))),
        ("DB_PASSWORD", some(2, "")),
        ("MYSQL_PWD", some(1, "") + drawn(DIGITS, 3)),
        ("ADMIN_PASSWORD", some(1, "").capitalize() + drawn(DIGITS, 2) + "!"),
        ("SMTP_PASSWD", drawn(MIXED + "!$%&/", 9)),
        ("KEYCLOAK_ADMIN_PASSWORD", some(2, "")),
        ("KEYCLOAK_CLIENT_SECRET", drawn(MIXED, 32)),
        ("REDIS_PASSWORD", drawn(DIGITS, 8)),
        ("MLFLOW_TRACKING_PASSWORD", "the-" + some(3, "-") + "-1"),
        ("PASSWORD", drawn(LOWER, 5) + drawn(DIGITS, 2)),
        ("USER_PASSWORDS", f"ann:{drawn(MIXED, 8)}"),
        ("CREDENTIALS", f"user:{drawn(MIXED, 12)}"),
    ]


def further_secrets(seed):
    """Forms that the rule was not made with."""
    rng = random.Random(f"further {seed}")  # noqa: S311

    def drawn(of, length):
        return "".join(rng.choice(of) for _ in range(length))

    def some(count, between):
        return between.join(rng.sample(WORDS, count))

    return [
        ("CLOUDFLARE_API_TOKEN", drawn(MIXED + "-_", 40)),
        ("DD_API_KEY", drawn(HEX, 32)),
        ("DD_APP_KEY", drawn(HEX, 40)),
        ("NEW_RELIC_LICENSE_KEY", drawn(HEX, 36) + "NRAL"),
        ("SENTRY_AUTH_TOKEN", "sntrys_" + base64.b64encode(rng.randbytes(60)).decode()),
        ("SNYK_TOKEN", str(uuid.UUID(int=rng.getrandbits(128), version=4))),
        ("TF_VAR_db_password", some(2, "")),
        ("SPRING_DATASOURCE_PASSWORD", drawn(MIXED, 8)),
        ("SNOWFLAKE_PASSWORD", some(1, "") + drawn(DIGITS, 4)),
        ("dbPassword", some(1, "").title() + some(1, "").title()),
        ("clientSecret", drawn(MIXED, 20)),
        ("AIRFLOW__CORE__FERNET_KEY", base64.urlsafe_b64encode(rng.randbytes(32)).decode()),
        ("LANGCHAIN_API_KEY", "lsv2_pt_" + drawn(HEX, 32) + "_" + drawn(HEX, 10)),
        ("PINECONE_API_KEY", "pcsk_" + drawn(MIXED, 60)),
        ("REPLICATE_API_TOKEN", "r8_" + drawn(MIXED, 37)),
        ("MINIO_SECRET_KEY", drawn(MIXED + "/+", 40)),
        ("MINIO_ROOT_PASSWORD", some(1, "") + "-" + some(1, "")),
        ("RAY_REDIS_PASSWORD", drawn(HEX, 16)),
        ("JUPYTER_TOKEN", drawn(HEX, 48)),
        ("GITEA_TOKEN", drawn(HEX, 40)),
        ("CIRCLE_TOKEN", drawn(HEX, 40)),
        ("ALGOLIA_ADMIN_KEY", drawn(HEX, 32)),
        ("MAILGUN_API_KEY", f"key-{drawn(HEX, 32)}"),
        ("FIREBASE_SERVER_KEY", f"AAAA{drawn(MIXED, 7)}:APA91b{drawn(MIXED + '-_', 134)}"),
        ("SHOPIFY_ACCESS_TOKEN", "shpat_" + drawn(HEX, 32)),
        ("SQUARE_TOKEN", "EAAA" + drawn(MIXED + "-_", 60)),
        ("COOKIE_SECRET", some(1, "") + some(1, "")),
        ("NEXTAUTH_SECRET", base64.b64encode(rng.randbytes(32)).decode()),
        ("SESSION_KEYS", f"{drawn(MIXED, 16)};{drawn(MIXED, 16)}"),
        ("SSHKEY", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" + base64.b64encode(rng.randbytes(32)).decode()),
        ("WIREGUARD_KEY", base64.b64encode(rng.randbytes(32)).decode()),
        ("ROOM_KEY", drawn(LOWER + DIGITS, 10)),
        ("BOT_TOKEN", drawn(MIXED, 8)),
        ("TOKEN", drawn(UPPER + DIGITS, 12)),
        ("DOOR_TOKEN", some(4, " ")),
        ("STORAGE_KEY", some(3, "-")),
        ("LDAP_BIND_PASSWORD", some(3, " ")),
        ("OPENSEARCH_INITIAL_ADMIN_PASSWORD", some(1, "").capitalize() + "#" + drawn(DIGITS, 3)),
        ("KEY_PASSPHRASE", some(1, "") + some(1, "").upper()),
        ("SERVICE_CREDENTIAL", f"{some(1, '')}:{drawn(MIXED, 14)}"),
    ]


OTHERS = """
KEYCLOAK_REALM=production | MONKEY_MODE=learning_rate | SORT_KEY=val_accuracy | PARTITION_KEY=created_at
CACHE_KEY=validation | KEYBOARD_LAYOUT=de-nodeadkeys | KEYBOARD=international | TURKEY_REGION=istanbul
KEY_METRIC=val_loss/weighted | PRIMARY_KEY=customer_id | GROUP_KEY=experiment_name
TOKENIZER=WordPieceTokenizer | TOKENIZERS_PARALLELISM=disabled | TOKENIZER_NAME=bert-base-uncased
TOKENIZER_PATH=/models/bert/tokenizer.json | MAX_TOKENS=100000000 | TOKEN_LIMIT=20000000 | PAD_TOKEN=[PADDING]
EOS_TOKEN=<|endoftext|> | TOKEN_BUDGET=1.5e+09 | SECRET_NAME=training-database
SECRETS_BACKEND=airflow.providers.hashicorp | PASSWORD_FILE=/run/secrets/postgres
KEY_FILE=/etc/ssl/private/server.pem | SSL_KEYFILE=/etc/ssl/certs/host.key | PRIVATE_KEY_PATH=~/.ssh/id_ed25519
GOOGLE_APPLICATION_CREDENTIALS=/home/me/.config/gcloud/application_default_credentials.json
AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/eks.amazonaws.com/serviceaccount/token
KEYRING_BACKEND=keyring.backends.null | TOKEN_URL=https://login.example.org/oauth2/v2.0/token
KEY_SERVER=keyserver.ubuntu.com | KEY_HOST=db1.prod-eu3.example.com
KEY_SERVER_URL=http://127.0.0.1:8080/metrics | TOKEN_ENDPOINT=http://keycloak.internal:8080/realms/production
SECRET_MANAGER_URL=https://secretmanager.googleapis.com | KEYVAULT_NAME=contoso-vault
VAULT_KEY_TYPE=rsa-encryption | KEY_ALGORITHM=RSASSA-PKCS1 | TOKEN_TYPE=RefreshToken | KEY_FORMAT=openssh-key
TOKEN_CLASS=RandomForestClassifier | KEY_COUNT=123456789 | KEY_TTL=86400000 | TOKEN_EXPIRES=2026-11-26T12:25:00Z
KEY_ROTATION=2026-11-26 | KEY_SIZE=0.00000001 | HOCKEY_TEAM=washington | DONKEY_ENV=staging-eu-west-1
WHISKEY_KIND=single-malt | MONKEY_MODEL=resnet50v2-imagenet | KEY_LAYER=conv2d_1/kernel:0
KEY_LAYERS=mobilenetv3large,efficientnetb7 | KEY_COLUMNS=sepal_length,petal_width
KEY_METRICS=precision,recall,f1_macro,roc_auc_ovr | METRIC_KEY=mean_squared_error | KEY_OPTIMIZER=AdamW(lr=1e-3)
TOKEN_MODEL=Qwen2.5-7B-Instruct | MODEL_KEY=distilbert-base-uncased-finetuned-sst-2-english
KEY_MODEL=llama3.1:8b | S3_KEY=datasets/mnist/train.parquet | OBJECT_KEY=models/2026/11/weights.h5
KEY_PREFIX=experiments/baseline/ | DATASET_KEY=fashion_mnist | CONFIG_KEY=optimizer.learning_rate
STATE_KEY=environments/production/terraform | KEYWORDS=hyperparameter,tuning | KEYMAP=emacs-default
KEYSPACE=analytics_events | ENTER_KEY=return/enter | TOKEN_STRATEGY=round-robin
SECRETARY_NAME=Margaret Hamilton | SECRET_LEVEL=confidential | TOKEN_POOLING=mean-pooling
KEY_SCHEDULE=cosine decay | KEY_FEATURES=age bmi bp | KEY_QUERY=self-attention | NUM_KEYS=1000000007
KEY_VALUE_STORE=memcached | REGISTRY_KEY=HKEY_LOCAL_MACHINE | KEYCHAIN=login.keychain-db | KEYNOTE=introduction
MALARKEY=nonsensical | KEY_PYTHON=python3.11 | KEY_VERSION=1.2.3rc4 | KEY_ARCH=x86_64-linux-gnu
KEY_DEVICE=cuda:0,cuda:1 | KEY_DTYPE=bfloat16 | KEY_ADDRESS=10.244.1.17:50051
TOKEN_SERVICE=auth.default.svc.cluster.local | KEY_ENABLED=true-by-default | KEY_EMAIL=ann.smith@example.org
KEY_ACTIVATION=LeakyReLU | TOKEN_ENCODING=utf8mb4_general_ci | KEYCLOAK_VERSION=24.0.5-final
"""
"""Variables that have KEY, TOKEN and the like in their names, with values that are no secrets."""


FURTHER_OTHERS = """
KEYCLOAK_THEME=corporate-dark | MONKEY_PATCHING=gevent-eager | KEY_EXPERIMENT=digits baseline
KEYDB_URL=redis://cache:6379 | TOKENS_PER_SECOND=1500.25 | TOKEN_MAX_LENGTH=4096000000 | KEY_SPLIT=stratified
KEY_LOSS=sparse_categorical_crossentropy | KEY_TASK=binary_classification | KEY_OWNER=data-science
TOKENIZE_LOWER=uncased-english | KEYPOINT_MODEL=HRNet-W48 | KEY_BUCKET=s3://ml-artifacts/runs/2026
ACCESS_KEY_ROTATION=quarterly | PUBLIC_KEY_URL=https://example.org/.well-known/jwks.json
API_KEY_HEADER=X-Api-Version | TOKEN_AUDIENCE=https://api.example.org/v2 | TOKEN_ISSUER=accounts.google.com
SECRET_STORE=kubernetes | SECRET_PROVIDER=HashiCorpVault | PASSWORD_POLICY=at-least-twelve
PASSWORD_MIN_LENGTH=12 | KEY_INITIALIZER=glorot_uniform | KEY_BACKEND=tensorflow-cpu
FOREIGN_KEY=order_items.order_id | SEARCH_KEY=estimator__batch_size | KEY_IMAGE=ghcr.io/example/trainer:1.4.2
KEY_PYTHONPATH=/opt/app/src:/opt/app/lib | KEY_CONDA_ENV=ml-training-gpu | KEY_CUDA=12.4.131
KEY_HOSTNAME=ip-10-0-3-27.eu-central-1.compute.internal | KEY_TIME=2026-11-26 12:00:00
KEY_BRANCH=feature/faster-recording | KEY_TIMEZONE=Europe/Berlin | KEY_LOCALE=de_DE.UTF-8
KEY_TERM=xterm-256color | KEY_CLASSES=setosa,versicolor,virginica | KEY_ESTIMATOR=GradientBoostingClassifier
TOKEN_DROPOUT=0.10000000 | KEY_WANDB_PROJECT=mnist-sweeps | KEY_AUGMENT=RandomRotation,RandomZoom
KEY_NODE=gpu-node-07 | KEY_GPU=NVIDIA A100-SXM4-80GB
"""
"""Those that the rule was not made with."""


def pairs(text):
    """A list of a variable and its value of such a text."""
    return [
        tuple(pair.strip().split("=", 1)) for line in text.splitlines() for pair in line.split(" | ") if pair.strip()
    ]
