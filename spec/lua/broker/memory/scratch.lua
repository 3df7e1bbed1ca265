--- A directory for one test: its name, and what removes it with all that is in it.
return function()
  local dir = os.tmpname()
  os.remove(dir)
  assert(os.execute("mkdir " .. dir))
  return dir, function()
    os.execute("rm -rf " .. dir)
  end
end
