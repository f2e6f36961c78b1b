import { readConfig } from "./config";
import { createInfra } from "./infra";

export = () => createInfra(readConfig());
