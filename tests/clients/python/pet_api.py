"""A small API made with FastAPI, which describes itself (OpenAPI 3.1) and refuses every request that does not fit its own
description. Started by crates/portcullis/tests/it/apis.rs: `pet_api.py PORT`."""

import sys
from enum import Enum
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, HTTPException, Path, Query
from pydantic import BaseModel, ConfigDict, Field


class Kind(str, Enum):
    cat = "cat"
    dog = "dog"


class Pet(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=40)
    kind: Kind = Kind.cat
    parent: "Pet | None" = None


app = FastAPI(title="Pets")
pets: dict[int, Pet] = {1: Pet(name="Tom"), 2: Pet(name="Rex", kind=Kind.dog)}


@app.get("/pets/", tags=["pets"])
def list_pets(
    kind: Annotated[list[Kind] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    x_request_note: Annotated[str | None, Header()] = None,
) -> dict:
    """Lists pets, of some kinds only where they are given."""
    chosen = [{"id": number, **pet.model_dump()} for number, pet in pets.items() if not kind or pet.kind in kind]
    return {"note": x_request_note, "pets": chosen[:limit]}


@app.get("/pets/by-name/{name}", tags=["pets"])
def find_pet(name: Annotated[str, Path(min_length=1)]) -> dict:
    """Finds a pet by its name."""
    for number, pet in pets.items():
        if pet.name == name:
            return {"id": number, **pet.model_dump()}
    raise HTTPException(404, f"no pet is called {name}")


@app.post("/pets/", status_code=201, tags=["pets"])
def add_pet(pet: Pet) -> dict:
    """Adds a pet."""
    number = max(pets, default=0) + 1
    pets[number] = pet
    return {"id": number, **pet.model_dump()}


@app.delete("/pets/{number}", tags=["pets"])
def drop_pet(number: int) -> dict:
    """Removes a pet."""
    if pets.pop(number, None) is None:
        raise HTTPException(404, "no such pet")
    return {"removed": number}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
