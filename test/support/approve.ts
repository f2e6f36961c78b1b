import * as assert from "node:assert/strict";
import { approve } from "../../cli/approve";
import type { Context, Report } from "../../cli/context";
import { Ledger } from "../../ledger/ledger";
import { Project } from "../../ledger/project";

/** Approves the latest request of an environment by its plan, as a person does who has read its card. */
export async function approveLatest(context: Context, environment: string): Promise<Report> {
  await context.ledger.fetch();
  const request = await context.ledger.request(environment);
  return approve(context, environment, request?.plan);
}

/** The plan of the latest request in a project's folder. */
export async function latestPlan(folder: string, environment: string): Promise<string> {
  const request = await new Ledger(await Project.open(folder)).request(environment);
  return request?.plan ?? assert.fail(`no request for ${environment}`);
}
