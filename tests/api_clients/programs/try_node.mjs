// OpenAI's client for JavaScript: prints a line of JSON for each trial.
import assert from "node:assert";
import OpenAI from "openai";
import { baseURL, chatText, embedder, exact, model, run } from "./trials.mjs";

const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const format = {
  type: "json_schema",
  json_schema: {
    name: "verdict",
    strict: true,
    schema: {
      type: "object",
      properties: { colour: { type: "string", enum: ["red", "blue"] } },
      required: ["colour"],
      additionalProperties: false,
    },
  },
};

await run({
  "chats: whole, streamed": async () => {
    const expected = await chatText();
    const told = await client.chat.completions.create(exact);
    assert.equal(told.choices[0].message.content, expected);
    const stream = await client.chat.completions.create({
      ...exact,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, expected);
    assert.equal(usage.completion_tokens, 12);
    const runner = client.chat.completions.stream(exact);
    assert.equal(await runner.finalContent(), expected);
  },
  "structured outputs": async () => {
    const told = await client.chat.completions.create({
      ...exact,
      max_tokens: 100,
      response_format: format,
    });
    const { colour } = JSON.parse(told.choices[0].message.content);
    assert.ok(["red", "blue"].includes(colour));
  },
  "responses: whole, streamed": async () => {
    const asked = { model, input: "hi", temperature: 0, max_output_tokens: 9 };
    const whole = await client.responses.create(asked);
    assert.ok(whole.output_text);
    let text = "";
    for await (const event of await client.responses.create({ ...asked, stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    assert.equal(text, whole.output_text);
  },
  embeddings: async () => {
    const told = await client.embeddings.create({ model: embedder, input: ["one", "two"] });
    const plain = await client.embeddings.create({
      model: embedder,
      input: "one",
      encoding_format: "float",
    });
    assert.equal(told.data.length, 2);
    told.data[0].embedding.forEach((value, place) => {
      assert.ok(Math.abs(value - plain.data[0].embedding[place]) < 1e-5);
    });
  },
  "models, errors": async () => {
    const names = [];
    for await (const each of client.models.list()) names.push(each.id);
    assert.ok(names.includes(model));
    await assert.rejects(
      client.chat.completions.create({ ...exact, model: "nobody" }),
      (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
    );
    await assert.rejects(
      client.chat.completions.create({ ...exact, temperature: -1 }),
      OpenAI.BadRequestError,
    );
  },
});
