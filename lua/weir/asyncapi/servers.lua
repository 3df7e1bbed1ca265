--- The servers of a document, and how they ask who is there.
-- @module weir.asyncapi.servers

local name = require("weir.asyncapi.name")

local SCHEMES = {
  user_password = { id = "userPassword", type = "userPassword", description = "A user and a password." },
  token = { id = "token", type = "apiKey", ["in"] = "password", description = "A token." },
  key_pair = {
    id = "keyPair",
    type = "asymmetricEncryption",
    description = "An NKey, or credentials with a JWT: the client signs what the server sends.",
  },
  certificate = { id = "certificate", type = "X509", description = "A certificate of the client, by TLS." },
  http_basic = { id = "httpBasic", type = "http", scheme = "basic" },
  http_bearer = { id = "httpBearer", type = "http", scheme = "bearer" },
}

local function security(server, schemes)
  local list = {}
  for way in (server.security or ""):gmatch("[^,]+") do
    local known = SCHEMES[way]
    if known then
      local scheme = {}
      for key, value in pairs(known) do
        scheme[key] = key ~= "id" and value or nil
      end
      schemes[known.id] = scheme
      list[#list + 1] = { ["$ref"] = "#/components/securitySchemes/" .. known.id }
    end
  end
  return #list > 0 and list or nil
end

--- Describes the servers of a broker: one for each host.
-- @tparam table broker one of the `brokers` of `app:describe()`
-- @tparam table into gets the servers, by id
-- @tparam table schemes gets the security schemes that they use, by id
-- @treturn {table,...} references to the servers
return function(broker, into, schemes)
  local server, references = broker.server or {}, {}
  local path = server.pathname and server.pathname:gsub("[?#].*", "")
  for host in (server.host or "localhost"):gmatch("[^,]+") do
    local id = name.id(broker.label)
    if #references > 0 then
      id = id .. "_-" .. (#references + 1)
    end
    into[id] = {
      host = host:gsub("^.*@", ""),
      protocol = server.protocol or broker.kind,
      protocolVersion = server.version,
      pathname = path,
      description = broker.description,
      security = security(server, schemes),
    }
    references[#references + 1] = { ["$ref"] = "#/servers/" .. id }
  end
  return references
end
