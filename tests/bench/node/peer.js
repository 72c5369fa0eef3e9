// Drains a queue of jobs that do nothing: node peer.js NAME ADDRESS JOBS
//
// It prints a line when the queue is filled, starts when it reads one, prints the microseconds, and
// runs until its input ends, so that its processor time can be read.
"use strict";
const readline = require("node:readline");
const { Client } = require("pg");

const BATCH_SIZE = 500;
const QUEUE = "nothing";

async function graphileWorker(address, jobs) {
  const { Logger, run, makeWorkerUtils } = require("graphile-worker");
  const logger = new Logger(() => () => {}); // its log goes to the output that the parent reads
  const utils = await makeWorkerUtils({ connectionString: address, logger });
  await utils.migrate();
  const client = new Client({ connectionString: address });
  await client.connect();
  for (let first = 0; first < jobs; first += 5000) {
    const specs = Array.from({ length: Math.min(5000, jobs - first) }, () => ({
      identifier: QUEUE,
      payload: { text: "062569" },
    }));
    await utils.addJobs(specs);
  }
  await client.query("ANALYZE");
  return async () => {
    let done = 0;
    // Its documents (Performance) recommend a local queue and batched completion.
    const runner = await run({
      connectionString: address,
      preset: {
        worker: {
          concurrentJobs: 24,
          maxPoolSize: 25,
          localQueue: { size: BATCH_SIZE },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0,
        },
      },
      logger,
      noHandleSignals: true,
      parsedCronItems: [],
      taskList: { [QUEUE]: () => void (done += 1) },
    });
    const left = "SELECT count(*)::int AS left FROM graphile_worker._private_jobs";
    while (done < jobs || (await client.query(left)).rows[0].left > 0) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return () => runner.stop();
  };
}

async function pgBoss(address, jobs) {
  const { PgBoss } = require("pg-boss");
  const boss = new PgBoss({ connectionString: address, supervise: false, schedule: false });
  await boss.start();
  await boss.createQueue(QUEUE);
  for (let first = 0; first < jobs; first += 5000) {
    const many = Math.min(5000, jobs - first);
    await boss.insert(QUEUE, Array.from({ length: many }, () => ({ data: { text: "062569" } })));
  }
  const client = new Client({ connectionString: address });
  await client.connect();
  await client.query("ANALYZE");
  await client.end();
  return async () => {
    for (let done = 0; done < jobs; ) {
      const batch = await boss.fetch(QUEUE, { batchSize: BATCH_SIZE });
      await boss.complete(QUEUE, batch.map((job) => job.id));
      done += batch.length;
    }
    return () => boss.stop({ graceful: false });
  };
}

async function main([name, address, jobs]) {
  const prepare = { "graphile-worker": graphileWorker, "pg-boss": pgBoss }[name];
  const drain = await prepare(address, Number(jobs));
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  console.log("ready");
  await lines.next();
  const began = process.hrtime.bigint();
  await drain();
  console.log(String((process.hrtime.bigint() - began) / 1000n));
  await lines.next();
  process.exit(0);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
