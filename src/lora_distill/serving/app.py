"""The web application: which path leads where."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

import lora_distill
from lora_distill.serving.gate import Gate, is_local
from lora_distill.serving.schemas import Answers, HubLabel, ModelInfo, Problem, State
from lora_distill.serving.service import Answering, Service, describe_fault
from lora_distill.serving.settings import ServeSettings

PAGES = Path(__file__).parent / "page"
COLOURS = Path(lora_distill.__file__).parent / "reporting" / "colours.css"
OPEN = {"/", "/healthz", "/readyz", "/docs", "/openapi.json", "/colours.css"}  # a GET of these needs no key
OPEN_FOLDERS = ("/page/", "/swagger/")
REASONS = {
    400: "The body is not JSON in UTF-8.",
    401: "The key is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    421: "The server is this machine's alone, and was asked for under another's name.",
    422: "Something in the request is wrong, or too much.",
    429: "Too many texts wait already; Retry-After says when to ask again.",
    503: "There was no answer in time, or the server is stopping.",
}


def create_app(classifier: Answering, settings: ServeSettings, *, key: str = "", card: str = "") -> FastAPI:
    """The application that serves a classifier.

    Args:
        classifier: that answers.
        settings: its limits, and which other sites may ask.
        key: that requests must bear; none if empty.
        card: the model card, in Markdown.
    """
    service = Service(classifier, settings, card)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        await service.batcher.close()

    app = FastAPI(
        title="lora-distill",
        version=lora_distill.__version__,
        summary="A text classifier.",
        docs_url=None,  # /docs is ours: FastAPI's asks another machine for its parts
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    _add_api(app, service)
    _add_pages(app)
    app.exception_handler(HTTPException)(_say_problem)
    app.exception_handler(RequestValidationError)(_say_faults)
    app.add_middleware(
        Gate,
        key=key,
        local=not key and is_local(settings.host),
        is_open=lambda path: path in OPEN or path.startswith(OPEN_FOLDERS),
        max_body=int(settings.max_body),
        timeout=settings.timeout,
        observe=service.metrics.request,
    )
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    if key:
        app.openapi = lambda: _with_key(app)  # type: ignore[method-assign] # how FastAPI's documentation does it
    return app


def _add_api(app: FastAPI, service: Service) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": reason} for status, reason in REASONS.items()
    }
    refused: dict[int | str, dict[str, Any]] = {status: problems[status] for status in (401, 421)}
    classify: Callable[..., Any] = service.classify_pairs if service.pairs else service.classify
    as_hub: Callable[..., Any] = service.classify_pairs_as_hub if service.pairs else service.classify_as_hub
    app.post("/v1/classify", name="classify", tags=["classify"], response_model=Answers, responses=problems)(classify)
    app.get("/v1/model", tags=["classify"], response_model=ModelInfo, responses=refused)(service.model)
    as_theirs: dict[str, Any] = {"name": "classify_as_hub", "tags": ["Hugging Face's clients"]}
    app.post("/", response_model=list[list[HubLabel]], responses=problems, **as_theirs)(as_hub)
    app.get("/healthz", tags=["server"], response_model=State)(service.health)
    app.get("/readyz", tags=["server"], response_model=State, responses={503: {"model": State}})(service.readiness)
    app.get("/metrics", tags=["server"], response_class=PlainTextResponse, responses=refused)(service.prometheus)


def _add_pages(app: FastAPI) -> None:
    @app.get("/", tags=["server"], response_class=HTMLResponse)
    async def page() -> FileResponse:
        """A page to try the classifier."""
        return FileResponse(PAGES / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGES / "docs.html")

    @app.get("/colours.css", include_in_schema=False)
    async def colours() -> FileResponse:
        return FileResponse(COLOURS)

    app.mount("/page", StaticFiles(directory=PAGES))
    app.mount("/swagger", StaticFiles(packages=[("fastapi_offline", "static")]))


async def _say_problem(request: Request, error: HTTPException) -> JSONResponse:
    reason = REASONS[400] if error.status_code == 400 else error.detail  # FastAPI's own says less
    headers = dict(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of one route only, and a path may have two
        methods = {
            method
            for route in request.app.routes
            if isinstance(route, Route) and route.path == request.scope["path"]
            for method in route.methods or ()
        } or {"GET"}  # of a folder's files
        headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return JSONResponse({"error": reason}, error.status_code, headers)


async def _say_faults(_request: Request, error: RequestValidationError) -> JSONResponse:
    if isinstance(error.body, bytes):  # else it was read as JSON
        return JSONResponse({"error": "Send JSON, with the header 'Content-Type: application/json'."}, 422)
    faults = [describe_fault(fault) for fault in error.errors()[:3]]
    return JSONResponse({"error": "; ".join(faults)}, 422)


def _with_key(app: FastAPI) -> dict[str, Any]:
    """The API's description, saying which of it needs the key."""
    if not app.openapi_schema:
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                if method != "get" or path not in OPEN:
                    operation["security"] = [{"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema
