import { readFile } from "node:fs/promises";
import { z } from "zod";
import { readFlow } from "../cli/flow";
import type { Previewed } from "../cli/preview";
import { Project } from "../ledger/project";
import { formatCard } from "../release/change-card";
import { parseJson } from "../release/json";
import { plainLines } from "../release/plain-text";
import { parseRef, rowFor } from "../release/flow";

/*
 * What only GitHub can do, through its REST API (https://docs.github.com/rest), in a job:
 *
 *   comment ENV FILE     the card that `baton preview ENV --json` printed, as one comment
 *   pull-request REF     the one that pipelines/flow.yaml wants after a push
 *
 * It reads GITHUB_API_URL and GITHUB_REPOSITORY, which every job has, GITHUB_TOKEN, and for a
 * comment PULL_REQUEST, the number.
 */

/** By which an environment's comment is found again. */
const markOf = (environment: string) => `<!-- baton preview ${environment} -->`;
/** Of a comment, in characters; GitHub takes 65,536. */
const LONGEST = 60_000;
/** Of one request, in milliseconds. */
const TIMEOUT = 15_000;

/** The author of what a job writes with its GITHUB_TOKEN. */
const AUTHOR = "github-actions[bot]";

const Comments = z.array(
  z.object({
    id: z.number(),
    body: z.string().nullish(),
    user: z.object({ login: z.string() }).nullish(),
  }),
);
const PullRequests = z.array(z.object({ html_url: z.string() }));
const Created = z.object({ html_url: z.string() });

/** Makes an environment's comment, or brings it up to date. */
export async function comment(environment: string, file: string): Promise<void> {
  const { environments } = (parseJson(await readFile(file, "utf8")) ?? {}) as {
    environments?: readonly Previewed[];
  };
  const mark = markOf(environment);
  const body = `${mark}\n${textOf(environment, environments?.[0])}`;
  const issue = `issues/${variable("PULL_REQUEST")}/comments`;
  for (let page = 1; ; page += 1) {
    const comments = Comments.parse(await ask("GET", `${issue}?per_page=100&page=${page}`));
    const former = comments.find(
      ({ body: text, user }) => user?.login === AUTHOR && text?.startsWith(mark) === true,
    );
    if (former !== undefined) {
      await ask("PATCH", `issues/comments/${former.id}`, { body });
      console.log("The comment is up to date.");
      return;
    }
    if (comments.length === 0) break;
  }
  await ask("POST", issue, { body });
  console.log("The comment was made.");
}

/** Opens a pull request, unless one is open or there is nothing to bring. */
export async function pullRequest(name: string): Promise<void> {
  const ref = parseRef(name);
  const match = ref && rowFor(await readFlow(await Project.open(process.cwd())), ref);
  const base = match?.row.pullRequest;
  if (ref === undefined || match === undefined || base === undefined) {
    console.log(`${name}: no pull request is wanted.`);
    return;
  }
  const head = "tag" in match.row ? match.row.on : ref.name;
  const owner = variable("GITHUB_REPOSITORY").split("/")[0] ?? "";
  const question = new URLSearchParams({ state: "open", head: `${owner}:${head}`, base });
  const [open] = PullRequests.parse(await ask("GET", `pulls?${question.toString()}`));
  if (open !== undefined) {
    console.log(`It is open already: ${open.html_url}`);
    return;
  }
  const compared = z
    .object({ ahead_by: z.number() })
    .parse(await ask("GET", `compare/${encodeURIComponent(base)}...${encodeURIComponent(head)}`));
  if (compared.ahead_by === 0) {
    console.log(`${base} has all of ${head} already.`);
    return;
  }
  const title = `Bring ${head} back to ${base}`;
  const body = `After ${ref.name}: ${base} gets what was released, and the requests for it.`;
  const made = await ask("POST", "pulls", { title, head, base, body });
  console.log(`It was opened: ${Created.parse(made).html_url}`);
}

/** The comment's text. */
function textOf(environment: string, previewed: Previewed | undefined): string {
  if (previewed === undefined) return `${environment}: the preview failed; the job's log says why.`;
  const { card, problem } = previewed;
  const text = card === undefined ? (problem ?? "no preview") : formatCard(card, 100);
  return `What this would change in ${environment}, if it were deployed now:\n\n${fence(plainLines(text).slice(0, LONGEST))}`;
}

/** A text as a block that nothing in it can end: the fence is longer than any in the text. */
function fence(text: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const mark = "`".repeat(longest + 1);
  return `${mark}text\n${text}\n${mark}`;
}

async function ask(method: string, path: string, body?: object): Promise<unknown> {
  const url = `${variable("GITHUB_API_URL")}/repos/${variable("GITHUB_REPOSITORY")}/${path}`;
  const response = await fetch(url, {
    method,
    headers: {
      accept: "application/vnd.github+json",
      authorization: `Bearer ${variable("GITHUB_TOKEN")}`,
      "x-github-api-version": "2022-11-28",
    },
    signal: AbortSignal.timeout(TIMEOUT),
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (response.ok) return response.json();
  throw new Error(
    `github: ${method} ${path.split("?")[0] ?? ""} answered ${response.status}; expected success. ` +
      "Check the job's permissions, and for pull requests that the repository lets workflows make them.",
  );
}

function variable(name: string): string {
  const value = process.env[name];
  if (value) return value;
  throw new Error(`github: ${name} is not set; expected it in every job. Set it.`);
}

async function main([command, argument, file]: readonly string[]): Promise<void> {
  if (command === "comment" && argument !== undefined && file !== undefined)
    await comment(argument, file);
  else if (command === "pull-request" && argument !== undefined) await pullRequest(argument);
  else throw new Error("github: expected comment ENV FILE or pull-request REF.");
}

if (require.main === module) {
  main(process.argv.slice(2)).catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : String(error));
    process.exitCode = 1;
  });
}
